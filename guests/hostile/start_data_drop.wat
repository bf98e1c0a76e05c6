;; Copies a data segment in `_start` and drops it.
(module
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (memory (export "memory") 1)
  (data $segment "from the segment")
  (func (export "_start")
    (memory.init $segment (i32.const 0) (i32.const 0) (i32.const 16))
    (data.drop $segment))
  (func (export "handle_request") (result i64)
    (call $write_body (i32.const 1) (i32.const 0) (i32.const 16))
    (i64.const 0)))
