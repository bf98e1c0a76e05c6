;; Takes memory until it gets no more. Answers with the last result of memory.grow and with the
;; pages it has then, each as four bytes.
(module
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "handle_request") (result i64)
    (local $result i32)
    (loop $more
      (local.set $result (memory.grow (i32.const 1)))
      (br_if $more (i32.ne (local.get $result) (i32.const -1))))
    (i32.store (i32.const 0) (local.get $result))
    (i32.store (i32.const 4) (memory.size))
    ;; What was given can be written to its end.
    (i32.store8 (i32.sub (i32.mul (memory.size) (i32.const 0x10000)) (i32.const 1)) (i32.const 1))
    (call $write_body (i32.const 1) (i32.const 0) (i32.const 8))
    (i64.const 0)))
