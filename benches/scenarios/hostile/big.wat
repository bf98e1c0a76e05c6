;; Answers with 1 MiB, for clients that do not read it.
(module
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (memory (export "memory") 17)
  (func (export "handle_request") (result i64)
    (memory.fill (i32.const 0) (i32.const 0x61) (i32.const 0x100000))
    (call $write_body (i32.const 1) (i32.const 0) (i32.const 0x100000))
    (i64.const 0)))
