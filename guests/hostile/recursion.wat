;; Calls itself without end.
(module
  (import "http_handler" "get_method" (func $get_method (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $deeper (param $n i64) (result i64)
    (i64.add (i64.const 1) (call $deeper (i64.add (local.get $n) (i64.const 1)))))
  (func (export "handle_request") (result i64)
    (if (i32.eq (call $get_method (i32.const 0) (i32.const 0)) (i32.const 3)) ;; GET
      (then (return (i64.mul (i64.const 0) (call $deeper (i64.const 0))))))
    (i64.const 0)))
