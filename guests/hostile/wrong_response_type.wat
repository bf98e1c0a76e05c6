;; Exports `handle_response` with a result.
(module
  (memory (export "memory") 1)
  (func (export "handle_response") (param i32 i32) (result i32) (i32.const 0))
  (func (export "handle_request") (result i64) (i64.const 0)))
