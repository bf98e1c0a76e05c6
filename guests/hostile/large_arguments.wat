;; Calls host functions with 64 MiB of everything, in a row: a text to log, buffers to write, a path.
(module
  (import "http_handler" "log" (func $log (param i32 i32 i32)))
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (import "http_handler" "get_header_values"
    (func $get_header_values (param i32 i32 i32 i32 i32) (result i64)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 1024)
  (func $all
    (call $log (i32.const 2) (i32.const 16) (i32.const 0x3fffff0))
    (drop (call $get_header_values
      (i32.const 0) (i32.const 16) (i32.const 0x3fffff0) (i32.const 16) (i32.const 16)))
    ;; 8 million buffers without a byte.
    (i32.store (i32.const 0)
      (call $fd_write (i32.const 1) (i32.const 16) (i32.const 0x7fffc0) (i32.const 8)))
    (i32.store (i32.const 4)
      (call $path_open (i32.const 3) (i32.const 0) (i32.const 16) (i32.const 0x3fffff0)
        (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 8))))
  (func (export "handle_request") (result i64)
    (call $all) (call $all) (call $all) (call $all) (call $all) (call $all) (call $all) (call $all)
    ;; What the last two calls came to.
    (call $write_body (i32.const 1) (i32.const 0) (i32.const 8))
    (i64.const 0)))
