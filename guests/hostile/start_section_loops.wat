;; Runs without end in its start function, before it has been instantiated.
(module
  (memory (export "memory") 1)
  (func $start (loop $forever (br $forever)))
  (start $start)
  (func (export "handle_request") (result i64) (i64.const 0)))
