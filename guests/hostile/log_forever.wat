;; Logs without end.
(module
  (import "http_handler" "get_method" (func $get_method (param i32 i32) (result i32)))
  (import "http_handler" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "a line of the one that logs forever")
  (func (export "handle_request") (result i64)
    (if (i32.eq (call $get_method (i32.const 0) (i32.const 0)) (i32.const 3)) ;; GET
      (then
        (loop $forever
          (call $log (i32.const 2) (i32.const 0) (i32.const 35))
          (br $forever))))
    (i64.const 0)))
