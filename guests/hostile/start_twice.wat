;; Has a start function, `_initialize` and `_start`. Each of them must have run once, in this order:
;; each appends its digit to a global. Answers with the global.
(module
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (memory (export "memory") 1)
  (global $order (mut i32) (i32.const 0))
  (func $note (param $digit i32)
    (global.set $order
      (i32.add (i32.mul (global.get $order) (i32.const 10)) (local.get $digit))))
  (func $start (call $note (i32.const 1)))
  (start $start)
  (func (export "_initialize") (call $note (i32.const 2)))
  (func (export "_start") (call $note (i32.const 3)))
  (func (export "handle_request") (result i64)
    (i32.store (i32.const 0) (global.get $order))
    (call $write_body (i32.const 1) (i32.const 0) (i32.const 4))
    (i64.const 0)))
