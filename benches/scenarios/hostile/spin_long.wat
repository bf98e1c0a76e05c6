;; Counts to 60,000,000, which takes about 20 ms.
(module
  (memory (export "memory") 1)
  (func (export "handle_request") (result i64) (local $left i32)
    (local.set $left (i32.const 60000000))
    (loop $again
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (i64.const 0)))
