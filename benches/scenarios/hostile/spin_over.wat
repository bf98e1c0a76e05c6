;; Counts to 1,500,000: more than the time that a call has at once.
(module
  (memory (export "memory") 1)
  (func (export "handle_request") (result i64) (local $left i32)
    (local.set $left (i32.const 1500000))
    (loop $again
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (i64.const 0)))
