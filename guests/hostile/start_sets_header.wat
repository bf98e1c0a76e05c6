;; Sets a response header in `_start`, where there is no response.
(module
  (import "http_handler" "set_header_value" (func $set (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "x-early")
  (func (export "_start")
    (call $set (i32.const 1) (i32.const 0) (i32.const 7) (i32.const 0) (i32.const 7)))
  (func (export "handle_request") (result i64) (i64.const 0)))
