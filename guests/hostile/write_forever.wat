;; Writes a response without end.
(module
  (import "http_handler" "get_method" (func $get_method (param i32 i32) (result i32)))
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "handle_request") (result i64)
    (if (i32.eq (call $get_method (i32.const 0) (i32.const 0)) (i32.const 3)) ;; GET
      (then
        (loop $forever
          (call $write_body (i32.const 1) (i32.const 0) (i32.const 0x10000))
          (br $forever))))
    (i64.const 0)))
