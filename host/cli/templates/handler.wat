;; An HTTP handler in WebAssembly text: answers every request with a line of text.
;;
;; It speaks the http-wasm handler ABI (https://http-wasm.io/http-handler-abi/): the host calls
;; `handle_request` once for each request, and the handler calls the host to read the request and
;; to write the response. Text is passed as two numbers: where it begins in memory, and how many
;; bytes it has.
(module
  ;; Functions of the host. `kind` says which headers or which body is meant.

  ;; Sets a header. kind: 0 is the request, 1 is the response.
  (import "http_handler" "set_header_value"
    (func $set_header_value
      (param $kind i32)
      (param $name i32) (param $name_len i32)
      (param $value i32) (param $value_len i32)))

  ;; Writes a body: the first call replaces it, later calls append. kind as above.
  (import "http_handler" "write_body"
    (func $write_body (param $kind i32) (param $body i32) (param $body_len i32)))

  ;; One page of memory, 64 KiB. The host reads from it, so it has to be exported.
  (memory (export "memory") 1)

  ;; What is in memory at the start. After a change of a text, change its length below.
  (data (i32.const 0) "content-type")               ;; 12 bytes
  (data (i32.const 16) "text/plain; charset=utf-8") ;; 25 bytes
  (data (i32.const 64) "Hello, World!\n")           ;; 14 bytes

  ;; Called for each request. The result 0 says that the response is complete; 1 would pass the
  ;; request on to the upstream.
  (func (export "handle_request") (result i64)
    (call $set_header_value
      (i32.const 1)                    ;; the response
      (i32.const 0) (i32.const 12)     ;; name
      (i32.const 16) (i32.const 25))   ;; value
    (call $write_body
      (i32.const 1)                    ;; the response
      (i32.const 64) (i32.const 14))   ;; body
    (i64.const 0)))
