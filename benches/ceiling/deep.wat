;; Uses most of its stack, and is reset: its instance is kept ready.
(module
  (memory (export "memory") 1)
  (func $deep (param $left i32) (result i32)
    (if (result i32) (i32.eqz (local.get $left))
      (then (i32.const 0))
      (else
        (i32.add (i32.const 1) (call $deep (i32.sub (local.get $left) (i32.const 1)))))))
  (func (export "handle_request") (result i64)
    (drop (call $deep (i32.const 7000)))
    (i64.const 0)))
