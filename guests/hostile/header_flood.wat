;; Adds response headers without end.
(module
  (import "http_handler" "get_method" (func $get_method (param i32 i32) (result i32)))
  (import "http_handler" "add_header_value" (func $add (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "x-flood")
  (func (export "handle_request") (result i64)
    (if (i32.eq (call $get_method (i32.const 0) (i32.const 0)) (i32.const 3)) ;; GET
      (then
        (loop $forever
          (call $add (i32.const 1) (i32.const 0) (i32.const 7) (i32.const 0) (i32.const 7))
          (br $forever))))
    (i64.const 0)))
