//! The workload of `stream`, piece by piece. How the pieces are sent is up to the server.

/// The number of events if the query names none.
const EVENTS: u32 = 10;

/// The content type of the events.
pub const EVENTS_TYPE: &str = "text/event-stream";
/// The content type of a body in upper case.
pub const UPPER_TYPE: &str = "text/plain";
/// The content type of [`USAGE`].
pub const USAGE_TYPE: &str = "text/plain; charset=utf-8";
/// The answer to all other requests.
pub const USAGE: &str =
    "GET …/sse[?events=N] is a clock, POST …/upper gives a body back in upper case\n";

/// The number of events that a query asks for.
pub fn events(query: Option<&str>) -> u32 {
    let asked = query.and_then(|query| query.strip_prefix("events="));
    asked.and_then(|number| number.parse().ok()).unwrap_or(EVENTS)
}

/// One event.
pub fn event(number: u32) -> String {
    format!("event: tick\ndata: {number}\n\n")
}

/// A piece of a body in upper case.
pub fn upper(piece: &[u8]) -> Vec<u8> {
    piece.to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_events_as_are_asked_for() {
        for (query, expected) in [
            (None, EVENTS),
            (Some(""), EVENTS),
            (Some("events=3"), 3),
            (Some("events=0"), 0),
            (Some("events=-1"), EVENTS),
            (Some("n=3"), EVENTS),
        ] {
            assert_eq!(events(query), expected, "{query:?}");
        }
        assert_eq!(event(7), "event: tick\ndata: 7\n\n");
    }

    #[test]
    fn only_letters_of_ascii_change() {
        assert_eq!(upper("straße 1\n".as_bytes()), "STRAßE 1\n".as_bytes());
        assert_eq!(upper(b"\x00\xffz"), b"\x00\xffZ");
    }
}
