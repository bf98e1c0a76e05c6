;; Traps in `_start`.
(module
  (memory (export "memory") 1)
  (func (export "_start") (unreachable))
  (func (export "handle_request") (result i64) (i64.const 0)))
