;; Logs 8 MB twenty times.
(module
  (import "http_handler" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 200)
  (func (export "handle_request") (result i64) (local $left i32)
    (local.set $left (i32.const 20))
    (loop $again
      (call $log (i32.const 2) (i32.const 0) (i32.const 8000000))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (i64.const 0)))
