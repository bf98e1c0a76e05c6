;; Takes 32 MiB at once and writes to all of it.
(module
  (memory (export "memory") 1)
  (func (export "handle_request") (result i64)
    (if (i32.eq (memory.grow (i32.const 512)) (i32.const -1)) (then (unreachable)))
    (memory.fill (i32.const 0x10000) (i32.const 0x61) (i32.const 0x2000000))
    (i64.const 0)))
