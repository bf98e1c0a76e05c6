;; Uses all that an instance may have of its memory, of a table and of its stack, and then waits for
;; the request's body. PAGES and DATA are put in by who uses it.
(module
  (import "http_handler" "read_body" (func $read_body (param i32 i32 i32) (result i64)))
  (memory (export "memory") PAGES)
  (table 20000 funcref)
  DATA
  (elem declare func $deep)
  (func $deep (param $left i32) (result i32)
    (if (result i32) (i32.eqz (local.get $left))
      (then (i32.const 0))
      (else
        (i32.add (i32.const 1) (call $deep (i32.sub (local.get $left) (i32.const 1)))))))
  (func (export "handle_request") (result i64)
    (memory.fill (i32.const 0) (i32.const 1) (i32.mul (memory.size) (i32.const 65536)))
    (table.fill (i32.const 0) (ref.func $deep) (i32.const 20000))
    (drop (call $deep (i32.const 7000)))
    (loop $read
      (br_if $read (i64.eqz (i64.shr_u
        (call $read_body (i32.const 0) (i32.const 0) (i32.const 4096)) (i64.const 32)))))
    (i64.const 0)))
