;; Sets a global of 128 bits in `_start`, a type that not every snapshot tool knows.
(module
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (memory (export "memory") 1)
  (global $wide (mut v128) (v128.const i64x2 0 0))
  (func (export "_start")
    (global.set $wide (v128.const i64x2 0x3837363534333231 0x6665646362613039)))
  (func (export "handle_request") (result i64)
    (v128.store (i32.const 0) (global.get $wide))
    (call $write_body (i32.const 1) (i32.const 0) (i32.const 16))
    (i64.const 0)))
