//! Small guests in WebAssembly text, each for one purpose of a test.

/// A guest of the handler ABI with these data segments and this body of `handle_request`. Memory
/// from 4096 on is free for the host to write.
pub fn guest(data: &str, body: &str) -> String {
    format!(
        r#"
(module
  (import "http_handler" "get_uri" (func $get_uri (param i32 i32) (result i32)))
  (import "http_handler" "get_header_values"
    (func $get_header_values (param i32 i32 i32 i32 i32) (result i64)))
  (import "http_handler" "set_header_value"
    (func $set_header_value (param i32 i32 i32 i32 i32)))
  (import "http_handler" "add_header_value"
    (func $add_header_value (param i32 i32 i32 i32 i32)))
  (import "http_handler" "read_body" (func $read_body (param i32 i32 i32) (result i64)))
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (import "http_handler" "set_status_code" (func $set_status_code (param i32)))
  (memory (export "memory") 2)
  {data}
  (func (export "handle_request") (result i64)
    (local $size i64)
    {body}
    (i64.const 0)))"#
    )
}

/// Answers with this text, which has no quotes in it.
pub fn says(text: &str) -> String {
    let body = format!("(call $write_body (i32.const 1) (i32.const 0) (i32.const {}))", text.len());
    guest(&format!(r#"(data (i32.const 0) "{text}")"#), &body)
}

/// Answers with its URI, then a line for each of these request headers: their values joined by
/// commas, or `-` if there are none.
pub fn tells(headers: &[&str]) -> String {
    let mut data = r#"(data (i32.const 0) "\n-,")"#.to_owned();
    let mut body = "
    (call $write_body (i32.const 1) (i32.const 4096)
      (call $get_uri (i32.const 4096) (i32.const 4096)))"
        .to_owned();
    let mut at = 16;
    for name in headers {
        data += &format!(r#"(data (i32.const {at}) "{name}")"#);
        // A NUL follows each value. It becomes a comma, and is dropped at the end.
        body += &format!(
            "
    (call $write_body (i32.const 1) (i32.const 0) (i32.const 1))
    (local.set $size (call $get_header_values (i32.const 0)
      (i32.const {at}) (i32.const {len}) (i32.const 4096) (i32.const 4096)))
    (if (i64.eqz (local.get $size))
      (then (call $write_body (i32.const 1) (i32.const 1) (i32.const 1)))
      (else (call $write_body (i32.const 1) (i32.const 4096)
        (i32.sub (i32.wrap_i64 (local.get $size)) (i32.const 1)))))",
            len = name.len()
        );
        at += name.len();
    }
    guest(&data, &body)
}

/// Reads the whole request body, then answers `read`.
pub fn reads() -> String {
    guest(
        r#"(data (i32.const 0) "read")"#,
        "
    (loop $more
      (local.set $size (call $read_body (i32.const 0) (i32.const 4096) (i32.const 4096)))
      (br_if $more (i64.eqz (i64.shr_u (local.get $size) (i64.const 32)))))
    (call $write_body (i32.const 1) (i32.const 0) (i32.const 4))",
    )
}

/// Answers with the request's body, piece by piece.
pub fn echoes() -> String {
    guest(
        "",
        "
    (loop $more
      (local.set $size (call $read_body (i32.const 0) (i32.const 4096) (i32.const 65536)))
      (call $write_body (i32.const 1) (i32.const 4096) (i32.wrap_i64 (local.get $size)))
      (br_if $more (i64.eqz (i64.shr_u (local.get $size) (i64.const 32)))))",
    )
}

/// Answers with this status, and with a body.
pub fn status(code: u16) -> String {
    let body = format!(
        "(call $set_status_code (i32.const {code}))
    (call $write_body (i32.const 1) (i32.const 0) (i32.const 4))"
    );
    guest(r#"(data (i32.const 0) "body")"#, &body)
}

/// Answers `body` with these response headers.
pub fn sets(headers: &[(&str, &str)]) -> String {
    let mut data = r#"(data (i32.const 0) "body")"#.to_owned();
    let mut body = "(call $write_body (i32.const 1) (i32.const 0) (i32.const 4))".to_owned();
    let mut at = 16;
    for (name, value) in headers {
        data += &format!(r#"(data (i32.const {at}) "{name}{value}")"#);
        body += &format!(
            "
    (call $add_header_value (i32.const 1) (i32.const {at}) (i32.const {})
      (i32.const {}) (i32.const {}))",
            name.len(),
            at + name.len(),
            value.len()
        );
        at += name.len() + value.len();
    }
    guest(&data, &body)
}

/// Never ends.
pub fn spins() -> String {
    guest("", "(loop $again (br $again))")
}
