;; Calls itself without end in `_start`.
(module
  (memory (export "memory") 1)
  (func $deeper (export "_start") (call $deeper) (call $deeper))
  (func (export "handle_request") (result i64) (i64.const 0)))
