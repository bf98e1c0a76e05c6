;; One of many versions of a handler: its body and a header say which it is, in two writes, so that
;; an answer of two versions shows.
(module
  (import "http_handler" "set_header_value" (func $set (param i32 i32 i32 i32 i32)))
  (import "http_handler" "write_body" (func $write (param i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "x-version")
  (data (i32.const 16) "VERSION VERSION VERSION VERSION VERSION VERSION VERSION VERSION VERSION VERSION ")
  (data (i32.const 76) "VERSION VERSION VERSION VERSION VERSION VERSION VERSION VERSION VERSION VERSION ")
  (data (i32.const 136) "VERSION VERSION VERSION VERSION VERSION VERSION VERSION VERSION VERSION VERSION ")
  (data (i32.const 196) "VERSION VERSION VERSION VERSION VERSION VERSION VERSION VERSION VERSION VERSION ")
  (func (export "handle_request") (result i64)
    (call $set (i32.const 1) (i32.const 0) (i32.const 9) (i32.const 16) (i32.const 5))
    (call $write (i32.const 1) (i32.const 16) (i32.const 120))
    (call $write (i32.const 1) (i32.const 136) (i32.const 120))
    (i64.const 0)))
