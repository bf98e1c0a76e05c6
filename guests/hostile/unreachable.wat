;; Traps at `unreachable`, as a panic does.
(module
  (import "http_handler" "get_method" (func $get_method (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $a_secret_name_inside (unreachable))
  (func (export "handle_request") (result i64)
    (if (i32.eq (call $get_method (i32.const 0) (i32.const 0)) (i32.const 3)) ;; GET
      (then (call $a_secret_name_inside)))
    (i64.const 0)))
