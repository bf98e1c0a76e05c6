;; A component of wasi:http 0.2 that looks once at a body of which there is no more yet, and then waits
;; for an hour.
(component
 (import "wasi:io/error@0.2.0" (instance $err (export "error" (type (sub resource)))))
 (alias export $err "error" (type $error))
 (import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type $p (sub resource)))
   (export "[method]pollable.block" (func (param "self" (borrow $p))))))
 (alias export $poll "pollable" (type $pollable))
 (import "wasi:io/streams@0.2.0" (instance $streams
   (alias outer 1 $error (type $e0)) (export "error" (type $e (eq $e0)))
   (export "input-stream" (type $is (sub resource)))
   (type $se0 (variant (case "last-operation-failed" (own $e)) (case "closed")))
   (export "stream-error" (type $se (eq $se0)))
   (export "[method]input-stream.read" (func (param "self" (borrow $is)) (param "len" u64)
     (result (result (list u8) (error $se)))))))
 (alias export $streams "input-stream" (type $istream))
 (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
   (alias outer 1 $pollable (type $p0)) (export "pollable" (type $p (eq $p0)))
   (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
 (import "wasi:http/types@0.2.0" (instance $types
   (alias outer 1 $istream (type $i0)) (export "input-stream" (type $i (eq $i0)))
   (export "incoming-request" (type $request (sub resource)))
   (export "incoming-body" (type $body (sub resource)))
   (export "response-outparam" (type (sub resource)))
   (export "[method]incoming-request.consume" (func (param "self" (borrow $request)) (result
     (result (own $body)))))
   (export "[method]incoming-body.stream" (func (param "self" (borrow $body)) (result (result
     (own $i)))))))
 (alias export $types "incoming-request" (type $request))
 (alias export $types "response-outparam" (type $outparam))
 (core module $m (memory (export "memory") 1) (global $top (mut i32) (i32.const 1024))
   (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) global.get $top
     (global.set $top (i32.add (global.get $top) (local.get 3)))))
 (core instance $mem (instantiate $m))
 (alias core export $mem "memory" (core memory $memory))
 (alias core export $mem "cabi_realloc" (core func $realloc))
 (alias export $types "[method]incoming-request.consume" (func $consume))
 (alias export $types "[method]incoming-body.stream" (func $stream))
 (alias export $streams "[method]input-stream.read" (func $read))
 (alias export $clock "subscribe-duration" (func $subscribe))
 (alias export $poll "[method]pollable.block" (func $block))
 (core func $cconsume (canon lower (func $consume) (memory $memory)))
 (core func $cstream (canon lower (func $stream) (memory $memory)))
 (core func $cread (canon lower (func $read) (memory $memory) (realloc $realloc)))
 (core func $csubscribe (canon lower (func $subscribe)))
 (core func $cblock (canon lower (func $block)))
 (core module $main
   (import "" "memory" (memory 1))
   (import "" "consume" (func $consume (param i32 i32))) (import "" "stream" (func $stream
     (param i32 i32)))
   (import "" "read" (func $read (param i32 i64 i32))) (import "" "sub" (func $subscribe
     (param i64) (result i32))) (import "" "block" (func $block (param i32)))
   (func (export "handle") (param i32 i32)
     (call $consume (local.get 0) (i32.const 64))
     (call $stream (i32.load (i32.const 68)) (i32.const 64))
     (call $read (i32.load (i32.const 68)) (i64.const 1000) (i32.const 96))
     (call $read (i32.load (i32.const 68)) (i64.const 1000) (i32.const 96))
     (call $block (call $subscribe (i64.const 3600000000000)))))
 (core instance $imp (export "memory" (memory $memory)) (export "consume" (func $cconsume))
   (export "stream" (func $cstream)) (export "read" (func $cread)) (export "sub"
   (func $csubscribe)) (export "block" (func $cblock)))
 (core instance $main (instantiate $main (with "" (instance $imp))))
 (alias core export $main "handle" (core func $handle))
 (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
   (canon lift (core func $handle)))
 (component $names
   (import "import-type-incoming-request" (type $request (sub resource)))
   (import "import-type-response-outparam" (type $outparam (sub resource)))
   (import "import-func-handle" (func $handle (param "request" (own $request))
     (param "response-out" (own $outparam))))
   (export "handle" (func $handle)))
 (instance $handler (instantiate $names (with "import-func-handle" (func $handle))
   (with "import-type-incoming-request" (type $request)) (with "import-type-response-outparam"
     (type $outparam))))
 (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))
