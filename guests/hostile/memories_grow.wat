;; Takes memory through three memories in turn until none gets more. Answers as memory_grow does,
;; with the pages of all memories together.
(module
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (memory $a (export "memory") 1)
  (memory $b 1)
  (memory $c 0)
  (func (export "handle_request") (result i64)
    (local $refused i32)
    (loop $more
      (local.set $refused (i32.const 0))
      (if (i32.eq (memory.grow $a (i32.const 1)) (i32.const -1))
        (then (local.set $refused (i32.add (local.get $refused) (i32.const 1)))))
      (if (i32.eq (memory.grow $b (i32.const 1)) (i32.const -1))
        (then (local.set $refused (i32.add (local.get $refused) (i32.const 1)))))
      (if (i32.eq (memory.grow $c (i32.const 1)) (i32.const -1))
        (then (local.set $refused (i32.add (local.get $refused) (i32.const 1)))))
      (br_if $more (i32.lt_u (local.get $refused) (i32.const 3))))
    (i32.store (i32.const 0) (i32.const -1))
    (i32.store (i32.const 4)
      (i32.add (memory.size $a) (i32.add (memory.size $b) (memory.size $c))))
    (call $write_body (i32.const 1) (i32.const 0) (i32.const 8))
    (i64.const 0)))
