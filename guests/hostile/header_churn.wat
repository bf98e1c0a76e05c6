;; Sets one header 100,000 times: more bytes in all than any limit, few at a time.
(module
  (import "http_handler" "set_header_value" (func $set (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "x-churn")
  (func (export "handle_request") (result i64)
    (local $left i32)
    (local.set $left (i32.const 100000))
    (loop $more
      (call $set (i32.const 1) (i32.const 0) (i32.const 7) (i32.const 0) (i32.const 7))
      (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (i64.const 0)))
