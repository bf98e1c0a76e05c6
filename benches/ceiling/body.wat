;; Answers with 8 MiB of zeros.
(module
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "handle_request") (result i64) (local $left i32)
    (local.set $left (i32.const 128))
    (loop $next
      (call $write_body (i32.const 1) (i32.const 0) (i32.const 65536))
      (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (i64.const 0)))
