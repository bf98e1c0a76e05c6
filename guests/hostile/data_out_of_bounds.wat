;; Has a data segment behind the end of its memory.
(module
  (memory (export "memory") 1)
  (data (i32.const 0xfffff) "nowhere")
  (func (export "handle_request") (result i64) (i64.const 0)))
