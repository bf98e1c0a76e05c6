;; Fills 124 MiB in one instruction where its path ends in /l, as one call in three does.
(module
  (import "http_handler" "get_uri" (func $uri (param i32 i32) (result i32)))
  (memory (export "memory") 2000)
  (func (export "handle_request") (result i64)
    (if (i32.eq
          (i32.load8_u (i32.sub (call $uri (i32.const 0) (i32.const 100)) (i32.const 1)))
          (i32.const 0x6c))
      (then (memory.fill (i32.const 4096) (i32.const 1) (i32.const 0x7c00000))))
    (i64.const 0)))
