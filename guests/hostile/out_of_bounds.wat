;; Reads behind the end of its memory, at the far end of the 4 GiB that an address can name.
(module
  (import "http_handler" "get_method" (func $get_method (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "handle_request") (result i64)
    (if (i32.eq (call $get_method (i32.const 0) (i32.const 0)) (i32.const 3)) ;; GET
      (then (drop (i64.load offset=0xffffffff (i32.const -1)))))
    (i64.const 0)))
