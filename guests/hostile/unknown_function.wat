;; Imports a function that the handler interface does not have.
(module
  (import "http_handler" "get_methods" (func (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "handle_request") (result i64) (i64.const 0)))
