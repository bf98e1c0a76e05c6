;; Exports `_start` with a parameter.
(module
  (memory (export "memory") 1)
  (func (export "_start") (param i32))
  (func (export "handle_request") (result i64) (i64.const 0)))
