;; Adds large response headers without end, and between them sets a small request header often, so
;; that a sum which forgets what kind it counts would begin anew each time.
(module
  (import "http_handler" "get_method" (func $get_method (param i32 i32) (result i32)))
  (import "http_handler" "add_header_value" (func $add (param i32 i32 i32 i32 i32)))
  (import "http_handler" "set_header_value" (func $set (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "x-a")
  (func (export "handle_request") (result i64)
    (local $turn i32)
    (if (i32.eq (call $get_method (i32.const 0) (i32.const 0)) (i32.const 3)) ;; GET
      (then
        (memory.fill (i32.const 1024) (i32.const 0x61) (i32.const 26000))
        (loop $forever
          (call $add (i32.const 1) (i32.const 0) (i32.const 3) (i32.const 1024) (i32.const 26000))
          (local.set $turn (i32.const 0))
          (loop $often
            (call $set (i32.const 0) (i32.const 0) (i32.const 3) (i32.const 1024) (i32.const 200))
            (local.set $turn (i32.add (local.get $turn) (i32.const 1)))
            (br_if $often (i32.lt_u (local.get $turn) (i32.const 200))))
          (br $forever))))
    (i64.const 0)))
