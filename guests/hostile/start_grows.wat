;; Grows its memory in `_start`, writes to the end of it, and counts there. Answers with the pages
;; and the count.
(module
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (memory.grow (i32.const 2)))
    (i32.store (i32.const 0x2fffc) (i32.add (i32.load (i32.const 0x2fffc)) (i32.const 7))))
  (func (export "handle_request") (result i64)
    (i32.store (i32.const 0) (memory.size))
    (i32.store (i32.const 4) (i32.load (i32.const 0x2fffc)))
    (call $write_body (i32.const 1) (i32.const 0) (i32.const 8))
    (i64.const 0)))
