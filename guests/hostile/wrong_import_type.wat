;; Imports a function of the handler interface with a type that it does not have.
(module
  (import "http_handler" "get_method" (func (param i64) (result i64)))
  (memory (export "memory") 1)
  (func (export "handle_request") (result i64) (i64.const 0)))
