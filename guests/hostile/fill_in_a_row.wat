;; Fills and moves 64 MiB by one instruction, four hundred times, without a loop.
(module
  (import "http_handler" "get_method" (func $get_method (param i32 i32) (result i32)))
  (memory (export "memory") 1025)
  (func $fill_and_move
    (memory.fill (i32.const 0) (i32.const 1) (i32.const 0x4000000))
    (memory.copy (i32.const 1) (i32.const 0) (i32.const 0x4000000)))
  (func $ten_times
    (call $fill_and_move) (call $fill_and_move) (call $fill_and_move) (call $fill_and_move)
    (call $fill_and_move) (call $fill_and_move) (call $fill_and_move) (call $fill_and_move)
    (call $fill_and_move) (call $fill_and_move))
  (func (export "handle_request") (result i64)
    (if (i32.eq (call $get_method (i32.const 0) (i32.const 0)) (i32.const 3)) ;; GET
      (then
        (call $ten_times) (call $ten_times) (call $ten_times) (call $ten_times)
        (call $ten_times) (call $ten_times) (call $ten_times) (call $ten_times)
        (call $ten_times) (call $ten_times) (call $ten_times) (call $ten_times)
        (call $ten_times) (call $ten_times) (call $ten_times) (call $ten_times)
        (call $ten_times) (call $ten_times) (call $ten_times) (call $ten_times)))
    (i64.const 0)))
