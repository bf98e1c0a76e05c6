;; Waits for 400,000 clocks at once, and then for as many as the host takes: a second each.
(module
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 300)
  (func (export "handle_request") (result i64) (local $at i32)
    (loop $next
      (i32.store (i32.add (i32.mul (local.get $at) (i32.const 48)) (i32.const 16)) (i32.const 1))
      (i64.store (i32.add (i32.mul (local.get $at) (i32.const 48)) (i32.const 24))
        (i64.const 1000000000))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (i32.const 400000))))
    (if (call $poll (i32.const 0) (i32.const 0) (i32.const 400000) (i32.const 0))
      (then (drop (call $poll (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 0)))))
    (i64.const 0)))
