;; Leaves `_start` by `proc_exit(3)`, which is an error.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (call $proc_exit (i32.const 3)))
  (func (export "handle_request") (result i64) (i64.const 0)))
