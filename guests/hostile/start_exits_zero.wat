;; Leaves `_start` by `proc_exit(0)`, which is success, and answers.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "started?")
  (func (export "_start")
    (i32.store8 (i32.const 7) (i32.const 0x21)) ;; !
    (call $proc_exit (i32.const 0))
    (i32.store8 (i32.const 7) (i32.const 0x58))) ;; X
  (func (export "handle_request") (result i64)
    (call $write_body (i32.const 1) (i32.const 0) (i32.const 8))
    (i64.const 0)))
