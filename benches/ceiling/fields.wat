;; Adds 5,300 header fields to the request, the response and its trailers, which is as many as may
;; be, and then waits for the request's body.
(module
  (import "http_handler" "enable_features" (func $enable (param i32) (result i32)))
  (import "http_handler" "add_header_value" (func $add (param i32 i32 i32 i32 i32)))
  (import "http_handler" "read_body" (func $read_body (param i32 i32 i32) (result i64)))
  (memory (export "memory") 1)
  (data (i32.const 8) "a")
  (func $fill (param $kind i32) (local $left i32)
    (local.set $left (i32.const 5300))
    (loop $next
      (call $add (local.get $kind) (i32.const 8) (i32.const 1) (i32.const 8) (i32.const 1))
      (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
  (func (export "handle_request") (result i64)
    (drop (call $enable (i32.const 4)))
    (call $fill (i32.const 0))
    (call $fill (i32.const 1))
    (call $fill (i32.const 3))
    (loop $read
      (br_if $read (i64.eqz (i64.shr_u
        (call $read_body (i32.const 0) (i32.const 16) (i32.const 4096)) (i64.const 32)))))
    (i64.const 0)))
