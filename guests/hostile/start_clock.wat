;; Asks for the time in `_start` and when it handles. Answers with both, each as 8 bytes of
;; nanoseconds.
(module
  (import "wasi_snapshot_preview1" "clock_time_get"
    (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 0))))
  (func (export "handle_request") (result i64)
    (drop (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 8)))
    (call $write_body (i32.const 1) (i32.const 0) (i32.const 16))
    (i64.const 0)))
