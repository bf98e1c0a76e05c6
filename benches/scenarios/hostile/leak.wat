;; Takes memory a page at a time and writes to all of it, until it gets no more. It answers then: a
;; guest that traps each time would be paused, and do no harm.
(module
  (memory (export "memory") 1)
  (func (export "handle_request") (result i64)
    (local $page i32)
    (block $full
      (loop $more
        (local.set $page (memory.grow (i32.const 1)))
        (br_if $full (i32.eq (local.get $page) (i32.const -1)))
        (memory.fill
          (i32.mul (local.get $page) (i32.const 0x10000)) (i32.const 0x61) (i32.const 0x10000))
        (br $more)))
    (i64.const 0)))
