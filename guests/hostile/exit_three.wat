;; Ends the program, with an error, in the middle of a request.
(module
  (import "http_handler" "get_method" (func $get_method (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (func (export "handle_request") (result i64)
    (if (i32.eq (call $get_method (i32.const 0) (i32.const 0)) (i32.const 3)) ;; GET
      (then (call $proc_exit (i32.const 3))))
    (i64.const 0)))
