;; Needs ten million table slots to begin with.
(module
  (memory (export "memory") 1)
  (table 10000000 funcref)
  (func (export "handle_request") (result i64) (i64.const 0)))
