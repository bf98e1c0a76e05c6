;; Writes to stdout without end, and never ends the line.
(module
  (import "http_handler" "get_method" (func $get_method (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "handle_request") (result i64)
    (if (i32.eq (call $get_method (i32.const 0) (i32.const 0)) (i32.const 3)) ;; GET
      (then
        ;; One buffer: where it begins, how long it is.
        (i32.store (i32.const 0) (i32.const 1024))
        (i32.store (i32.const 4) (i32.const 32768))
        (memory.fill (i32.const 1024) (i32.const 0x78) (i32.const 32768))
        (loop $forever
          (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
          (br $forever))))
    (i64.const 0)))
