;; Asks for more than the maximum of one of its memories, and then for pages of another which it
;; may have: what was refused must not count. Answers with both results of memory.grow, each as
;; four bytes.
(module
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (memory $a (export "memory") 1 2)
  (memory $b 1)
  (func (export "handle_request") (result i64)
    (i32.store (i32.const 0) (memory.grow $a (i32.const 20)))
    (i32.store (i32.const 4) (memory.grow $b (i32.const 20)))
    (call $write_body (i32.const 1) (i32.const 0) (i32.const 8))
    (i64.const 0)))
