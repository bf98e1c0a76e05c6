//! The file format of the cases.
//!
//! The name of a file is its role: `client` sends the bytes to the host, `forward` does the same
//! and checks what the upstream receives, `upstream` answers the host with the bytes. Empty lines
//! separate the cases:
//!
//! ```text
//! 5.1 MUST space before the colon           section (of RFC 9112, or `9110:`), level, what it is
//! @ HEAD                                    (upstream) method, version or field of the request
//! > GET / HTTP/1.1\r\nhost : a.test\r\n     the bytes; {H} and {n*text} stand for more
//! < 400 closed                              the answers, and what the connection is then
//! < body one|two                            all bodies
//! < has date:                               a field of the last answer begins so; or: lacks
//! < interim 100                             an interim answer before it, or: none
//! < sees x: 1                               a line of what reached the upstream; or: unseen
//! ! the host's answer is not the RFC's      why it differs
//! ? another remark
//! ```
//!
//! A status with an `h` is an answer to a HEAD. `cut` is an answer that breaks off. `either` is a
//! connection that may be open or closed. After the bytes of an upstream, `closes` in a line of `@`
//! makes it close its connection.

use std::fs;
use std::path::Path;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Client,
    Forward,
    Upstream,
}

impl Role {
    pub const ALL: [(Role, &'static str); 3] =
        [(Role::Client, "client"), (Role::Forward, "forward"), (Role::Upstream, "upstream")];
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    Must,
    Should,
    May,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    pub role: Role,
    pub section: String,
    pub level: Level,
    pub what: String,
    pub bytes: Vec<u8>,
    pub method: String,
    pub version: String,
    pub fields: String,
    pub closes: bool,
    /// The status of each answer, and the method that it answers.
    pub statuses: Vec<(u16, &'static str)>,
    pub is_open: bool,
    pub is_cut: bool,
    /// Whether the connection is open or closed, with nothing after the answers.
    pub is_either: bool,
    pub bodies: Option<Vec<String>>,
    pub fields_wanted: Vec<(String, bool)>,
    pub interim: Option<Vec<u16>>,
    pub seen: Vec<(String, bool)>,
    pub differs: bool,
    pub reason: String,
}

/// All cases, in the order of the files.
pub fn all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/grammar");
    let mut cases = Vec::new();
    for (role, name) in Role::ALL {
        let path = folder.join(format!("{name}.txt"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let blocks = text.split("\n\n").map(str::trim).filter(|block| !block.is_empty());
        cases.extend(blocks.filter(|block| !block.starts_with('#')).map(|it| parse(role, it)));
    }
    cases
}

fn parse(role: Role, block: &str) -> Case {
    let (title, lines) = block.split_once('\n').unwrap_or((block, ""));
    let mut words = title.splitn(3, ' ');
    let (Some(section), Some(level), Some(what)) = (words.next(), words.next(), words.next())
    else {
        panic!("not a title: {title}")
    };
    let mut case = Case {
        role,
        section: section.to_owned(),
        level: match level {
            "MUST" => Level::Must,
            "SHOULD" => Level::Should,
            "MAY" => Level::May,
            _ => panic!("not a level: {title}"),
        },
        what: what.to_owned(),
        bytes: Vec::new(),
        method: "GET".to_owned(),
        version: "HTTP/1.1".to_owned(),
        fields: String::new(),
        closes: false,
        statuses: Vec::new(),
        is_open: false,
        is_cut: false,
        is_either: false,
        bodies: None,
        fields_wanted: Vec::new(),
        interim: None,
        seen: Vec::new(),
        differs: false,
        reason: String::new(),
    };
    for line in lines.lines() {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            ">" => {
                case.bytes.extend(unescape(&expand(rest)));
            }
            "@" => setting(&mut case, rest),
            "<" => expectation(&mut case, rest),
            "!" => {
                case.differs = true;
                case.reason = rest.to_owned();
            }
            "?" => case.reason = rest.to_owned(),
            _ => panic!("{what}: not a line: {line}"),
        }
    }
    case
}

fn setting(case: &mut Case, text: &str) {
    match text {
        "closes" => case.closes = true,
        "HTTP/1.0" => case.version = text.to_owned(),
        field if field.contains(':') => case.fields += &format!("{field}\r\n"),
        method => case.method = method.to_owned(),
    }
}

fn expectation(case: &mut Case, text: &str) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let text_of = |text: &str| String::from_utf8(unescape(text)).expect("UTF-8");
    match word {
        "body" => {
            case.bodies = Some(rest.split('|').map(text_of).collect());
        }
        "has" => case.fields_wanted.push((rest.to_owned(), true)),
        "lacks" => case.fields_wanted.push((rest.to_owned(), false)),
        "sees" => case.seen.push((format!("\n{}\n", text_of(rest)), true)),
        "unseen" => case.seen.push((format!("\n{rest}"), false)),
        "interim" if rest == "none" => case.interim = Some(Vec::new()),
        "interim" => case.interim = Some(vec![rest.parse().expect("a status")]),
        _ => {
            for word in text.split(' ') {
                match word {
                    "open" => case.is_open = true,
                    "cut" => case.is_cut = true,
                    "either" => case.is_either = true,
                    "closed" => {}
                    status => case.statuses.push(match status.strip_suffix('h') {
                        Some(status) => (status.parse().expect("a status"), "HEAD"),
                        None => (status.parse().expect("a status"), "GET"),
                    }),
                }
            }
        }
    }
}

/// Expands `{H}` and repetitions.
fn expand(text: &str) -> String {
    let text = text.replace("{H}", "HTTP/1.1\\r\\nhost: a.test\\r\\n");
    let mut expanded = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, after) = after.split_once('}').expect("a closing brace");
        let (count, piece) = inside.split_once('*').expect("{count*text}");
        expanded += before;
        expanded += &piece.repeat(count.parse().expect("a count"));
        rest = after;
    }
    expanded + rest
}

/// Decodes `\r`, `\n`, `\t`, `\\` and `\x00`.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut left = text.bytes();
    while let Some(byte) = left.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match left.next() {
            Some(b'r') => bytes.push(b'\r'),
            Some(b'n') => bytes.push(b'\n'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'\\') => bytes.push(b'\\'),
            Some(b'x') => {
                let digits: Vec<u8> = left.by_ref().take(2).collect();
                let digits = String::from_utf8(digits).expect("two digits");
                bytes.push(u8::from_str_radix(&digits, 16).expect("two digits"));
            }
            other => panic!("{text}: not an escape: {other:?}"),
        }
    }
    bytes
}
