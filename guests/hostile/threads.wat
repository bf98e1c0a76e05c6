;; Uses a proposal that is switched off: a shared memory and an atomic access to it.
(module
  (memory (export "memory") 1 1 shared)
  (func (export "handle_request") (result i64)
    (i64.atomic.load (i32.const 0))))
