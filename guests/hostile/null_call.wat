;; Calls through a table slot that holds nothing.
(module
  (import "http_handler" "get_method" (func $get_method (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (table 2 funcref)
  (type $plain (func))
  (func (export "handle_request") (result i64)
    (if (i32.eq (call $get_method (i32.const 0) (i32.const 0)) (i32.const 3)) ;; GET
      (then (call_indirect (type $plain) (i32.const 1))))
    (i64.const 0)))
