//! Components of 0.3 that call each other: each call that waits has a stack of its own. The stack
//! counts as memory of the guest, and four stacks count as one instance.

use super::{MIB, given_back, shortages};
use crate::client::Connection;
use crate::host::{HELLO, Host, Setup, Status};
use crate::patience::soon;

/// The size of a stack: what a guest can use at most, and what the host uses.
const STACK_BYTES: u64 = (512 + 64) << 10;
/// The minimum charge of an instance.
const STACKS: u64 = 4;
const REQUEST: &str = "GET /calls HTTP/1.1\r\nhost: guest.test\r\n\r\n";

/// The cases of `error-code`, with their payloads.
const ERRORS: &str = r#"
    (case "DNS-timeout") (case "DNS-error" $dns) (case "destination-not-found")
    (case "destination-unavailable") (case "destination-IP-prohibited")
    (case "destination-IP-unroutable") (case "connection-refused") (case "connection-terminated")
    (case "connection-timeout") (case "connection-read-timeout") (case "connection-write-timeout")
    (case "connection-limit-reached") (case "TLS-protocol-error") (case "TLS-certificate-error")
    (case "TLS-alert-received" $alert) (case "HTTP-request-denied")
    (case "HTTP-request-length-required") (case "HTTP-request-body-size" (option u64))
    (case "HTTP-request-method-invalid") (case "HTTP-request-URI-invalid")
    (case "HTTP-request-URI-too-long") (case "HTTP-request-header-section-size" (option u32))
    (case "HTTP-request-header-size" (option $size))
    (case "HTTP-request-trailer-section-size" (option u32)) (case "HTTP-request-trailer-size" $size)
    (case "HTTP-response-incomplete") (case "HTTP-response-header-section-size" (option u32))
    (case "HTTP-response-header-size" $size) (case "HTTP-response-body-size" (option u64))
    (case "HTTP-response-trailer-section-size" (option u32))
    (case "HTTP-response-trailer-size" $size)
    (case "HTTP-response-transfer-coding" (option string))
    (case "HTTP-response-content-coding" (option string)) (case "HTTP-response-timeout")
    (case "HTTP-upgrade-failed") (case "HTTP-protocol-error") (case "loop-detected")
    (case "configuration-error") (case "internal-error" (option string))"#;

/// The types that a handler needs.
fn types() -> String {
    format!(
        r#"(instance $types
    (export "request" (type (sub resource)))
    (export "response" (type (sub resource)))
    (type $dns-1 (record (field "rcode" (option string)) (field "info-code" (option u16))))
    (export "DNS-error-payload" (type $dns (eq $dns-1)))
    (type $alert-1 (record
      (field "alert-id" (option u8)) (field "alert-message" (option string))))
    (export "TLS-alert-received-payload" (type $alert (eq $alert-1)))
    (type $size-1 (record
      (field "field-name" (option string)) (field "field-size" (option u32))))
    (export "field-size-payload" (type $size (eq $size-1)))
    (type $error-1 (variant {ERRORS}))
    (export "error-code" (type (eq $error-1))))"#
    )
}

/// A component that makes this many inner ones wait for a minute each, and then waits for `seconds`
/// itself.
fn calls(count: usize, seconds: u64) -> String {
    let each = |text: &dyn Fn(usize) -> String| (0..count).map(text).collect::<String>();
    let waiters = each(&|at| {
        format!(
            r#"
  (instance $waiter-{at} (instantiate $waiter (with "wait" (func $wait))))
  (alias export $waiter-{at} "hold" (func $hold-{at}))"#
        )
    });
    let given = each(&|at| format!(r#" (with "hold-{at}" (func $hold-{at}))"#));
    let imports = each(&|at| {
        format!(
            r#"
    (import "hold-{at}" (func $hold-{at} async))
    (core func $hold-{at} (canon lower (func $hold-{at}) async))"#
        )
    });
    let core_given = each(&|at| format!(r#" (export "hold-{at}" (func $hold-{at}))"#));
    let core_imports =
        each(&|at| format!(r#" (import "" "hold-{at}" (func $hold-{at} (result i32)))"#));
    let body = each(&|at| format!(" (drop (call $hold-{at}))"));
    let types = types();
    format!(
        r#"
(component
  (import "wasi:clocks/monotonic-clock@0.3.0" (instance $clock
    (export "wait-for" (func async (param "how-long" u64)))))
  (import "wasi:http/types@0.3.0" {types})
  (alias export $clock "wait-for" (func $wait))
  (component $waiter
    (import "wait" (func $wait async (param "how-long" u64)))
    (core func $wait (canon lower (func $wait)))
    (core module $module
      (import "" "wait" (func $wait (param i64)))
      (func (export "hold") (call $wait (i64.const 60_000_000_000))))
    (core instance $instance
      (instantiate $module (with "" (instance (export "wait" (func $wait))))))
    (func (export "hold") async (canon lift (core func $instance "hold"))))
  {waiters}
  (component $main
    (import "wait" (func $wait async (param "how-long" u64)))
    (import "types" {types})
    (alias export $types "request" (type $request))
    (alias export $types "response" (type $response))
    (alias export $types "error-code" (type $error))
    {imports}
    (core func $wait (canon lower (func $wait)))
    (core module $module
      {core_imports}
      (import "" "wait" (func $wait (param i64)))
      (memory (export "memory") 1)
      ;; An error, `internal-error`, without words.
      (data (i32.const 1024) "\01\00\00\00\00\00\00\00\26")
      (func (export "handle") (param i32) (result i32)
        {body}
        (call $wait (i64.const {seconds}_000_000_000))
        (i32.const 1024)))
    (core instance $instance (instantiate $module
      (with "" (instance {core_given} (export "wait" (func $wait))))))
    (alias core export $instance "memory" (core memory $memory))
    (func (export "handle") async (param "request" (own $request))
      (result (result (own $response) (error $error)))
      (canon lift (core func $instance "handle") (memory $memory))))
  (instance $main (instantiate $main
    (with "wait" (func $wait)) (with "types" (instance $types)) {given}))
  (alias export $main "handle" (func $handle))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/handler@0.3.0" (instance $handler)))"#
    )
}

fn host(count: usize, seconds: u64, isolation: &str) -> Setup {
    let setup = Host::with("good.wat", HELLO).file("calls.wat", calls(count, seconds));
    setup.args(["--workers", "1", "--isolation", isolation])
}

/// The stacks are charged while they exist.
#[test]
fn stacks_of_calls_between_components_count() {
    const COUNT: u64 = 24;
    for isolation in crate::hostile::ISOLATIONS {
        let host = host(COUNT as usize, 60, isolation).start();
        let idle = host.settled().memory_used;
        let mut connection = host.connect();
        connection.send(REQUEST);
        let least = idle + COUNT * STACK_BYTES;
        let most = least + STACKS * STACK_BYTES + MIB;
        let full = host.status_when("full", soon(), |status| status.memory_used >= least);
        assert!(full.memory_used <= most, "{} of {most}", full.memory_used);
        drop(connection);
        given_back(&host, idle + STACKS * STACK_BYTES + MIB);
        host.assert_serves("/good");
    }
}

/// If there is no memory for them, the guest is refused.
#[test]
fn more_stacks_than_there_is_memory_for_are_refused() {
    for isolation in crate::hostile::ISOLATIONS {
        let host = host(60, 60, isolation).args(["--memory-total", "24MiB"]).start();
        host.settled();
        assert_eq!(host.get("/calls").status, 503, "{isolation}");
        host.assert_serves("/good");
        assert_eq!(shortages(&host.at_rest()), 1);
    }
}

/// With one waiting call each there is room for them. What the guest answers does not matter here.
#[test]
fn calls_between_components_that_wait_are_served() {
    for isolation in crate::hostile::ISOLATIONS {
        let host = host(3, 0, isolation).start();
        host.settled();
        for _ in 0..3 {
            assert_eq!(host.get("/calls").status, 500, "{isolation}");
        }
        host.assert_serves("/good");
    }
}

/// Four stacks take one instance's place, and other guests keep their share of the places.
#[test]
fn many_stacks_of_one_guest_leave_places_for_others() {
    const ASKED: usize = 40;
    let waits = |count: usize| calls(count, 60);
    let guests = Host::empty().file("few.wat", waits(3)).file("calls.wat", waits(60));
    let host = guests.args(["--workers", "1", "--deadline", "60s"]).start();
    host.settled();
    let ask = |request: &str| -> Vec<Connection> {
        let connections = (0..ASKED).map(|_| {
            let mut connection = host.connect();
            connection.send(request);
            connection
        });
        connections.collect()
    };
    let _many = ask(REQUEST);
    let is_full = |status: &Status| {
        let refused = status.rejects("no_instance");
        refused > 0 && status.instances_out + refused == ASKED as u64
    };
    let full = host.status_when("full", soon(), is_full);
    let _few = ask(&REQUEST.replace("calls", "few"));
    let out = full.instances_out + ASKED as u64;
    let served = host.status_when("served", soon(), |status| status.instances_out == out);
    assert_eq!(served.rejects, full.rejects);
}
