;; Tries to end the response head within a header's value.
(module
  (import "http_handler" "get_method" (func $get_method (param i32 i32) (result i32)))
  (import "http_handler" "set_header_value" (func $set (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "x-a")
  (data (i32.const 16) "1\0d\0aset-cookie: stolen=1\0d\0a\0d\0a<script>")
  (func (export "handle_request") (result i64)
    (if (i32.eq (call $get_method (i32.const 0) (i32.const 0)) (i32.const 3)) ;; GET
      (then
        (call $set (i32.const 1) (i32.const 0) (i32.const 3) (i32.const 16) (i32.const 35))))
    (i64.const 0)))
