;; Calls a function through a table with a type that it does not have.
(module
  (import "http_handler" "get_method" (func $get_method (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (table funcref (elem $plain))
  (type $other (func (param i64) (result i64)))
  (func $plain)
  (func (export "handle_request") (result i64)
    (if (i32.eq (call $get_method (i32.const 0) (i32.const 0)) (i32.const 3)) ;; GET
      (then (drop (call_indirect (type $other) (i64.const 7) (i32.const 0)))))
    (i64.const 0)))
