;; Divides by zero.
(module
  (import "http_handler" "get_method" (func $get_method (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "handle_request") (result i64)
    ;; 3 - 3 for GET, 4 - 3 for POST
    (drop (i32.div_u
      (i32.const 1)
      (i32.sub (call $get_method (i32.const 0) (i32.const 0)) (i32.const 3))))
    (i64.const 0)))
