//! Parses HTTP/1.1 answers as they arrive, and keeps nothing of them.
//!
//! Owns framing: where an answer ends, and whether its connection goes on. A head that equals the
//! last one byte for byte is not parsed again. Knows no socket.

use std::fmt;

/// A longer head is refused, and so is a head with more fields.
const HEAD_BYTES_MAX: usize = 256 * 1024;
const HEADERS_MAX: usize = 1024;
/// Nearly all heads have at most so many fields.
const HEADERS_USUAL: usize = 64;
/// The longest line with the size of a chunk, extensions included.
const CHUNK_LINE_BYTES_MAX: usize = 4096;

/// What an answer's head says about the rest of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ResponseHead {
    status: u16,
    body: Body,
    /// The connection ends with this answer.
    closes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Bytes(u64),
    Chunked,
    UntilClose,
}

/// An answer that has arrived whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinishedResponse {
    /// The status code.
    pub status: u16,
    /// Whether the connection ends with this answer.
    pub closes: bool,
    /// The [`body_hash`] of its body, or 0 if the parser does not hash bodies.
    pub body_hash: u64,
}

/// The hash of a body: FNV-1a of 64 bits (Fowler, Noll, Vo; RFC 9923). It shows that a mistake has
/// mixed bodies up. It does not withstand an attacker.
pub fn body_hash(body: &[u8]) -> u64 {
    hash_on(HASH_BEGIN, body)
}

const HASH_BEGIN: u64 = 0xcbf2_9ce4_8422_2325;
const HASH_PRIME: u64 = 0x0000_0100_0000_01b3;

fn hash_on(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(HASH_PRIME))
}

/// Whether a status is the expected one. If none is expected, every status below 400 is right.
pub fn is_expected(expected: Option<u16>, status: u16) -> bool {
    expected.map_or(status < 400, |expected| expected == status)
}

/// Why an answer cannot be read: it is not HTTP/1.1, or longer than the generator accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The head is not that of an HTTP/1.1 answer.
    NotHttp,
    /// The head is longer than 256 KiB.
    LongHead,
    /// The head has more than 1024 fields.
    ManyFields,
    /// Content-Length is not a number, or two of its values differ.
    Length,
    /// The Transfer-Encoding is not `chunked`.
    Coding,
    /// A chunk has no size, or does not end where its size says.
    Chunk,
    /// The line with a chunk's size, or a trailer, is longer than 4096 bytes.
    LongLine,
    /// The answer belongs to no request.
    Unasked,
}

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let wrong = match self {
            Malformed::LongHead => {
                let kib = HEAD_BYTES_MAX >> 10;
                return write!(out, "the answer's head is longer than the {kib} KiB that are read");
            }
            Malformed::ManyFields => {
                return write!(
                    out,
                    "the answer's head has more than the {HEADERS_MAX} fields that are read"
                );
            }
            Malformed::LongLine => {
                let most = CHUNK_LINE_BYTES_MAX;
                return write!(
                    out,
                    "a chunk's size or a trailer has more than the {most} bytes that are read"
                );
            }
            Malformed::NotHttp => "its head cannot be read as one",
            Malformed::Length => "its Content-Length is not one number",
            Malformed::Coding => "its Transfer-Encoding is not chunked, the only one that is read",
            Malformed::Chunk => "a chunk has no size, or more bytes than that",
            Malformed::Unasked => "there is more of it than was asked for",
        };
        write!(out, "what the server sent is not HTTP/1.1: {wrong}")
    }
}

impl std::error::Error for Malformed {}

/// The last head that was parsed, and its meaning.
#[derive(Default)]
pub struct HeadCache {
    head: Vec<u8>,
    parsed_head: Option<ResponseHead>,
}

/// Parses the answers of one connection, one after the other.
#[derive(Default)]
pub struct Parser {
    state: State,
    /// The beginning of a head or a line that has not arrived whole.
    partial: Vec<u8>,
    /// The hash of the body so far. `None` if bodies are not hashed.
    hash: Option<u64>,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Head,
    /// So many bytes of the body are still to come.
    Bytes(ResponseHead, u64),
    UntilClose(ResponseHead),
    ChunkLine(ResponseHead),
    /// So many bytes of a chunk are still to come, among them the line end behind it.
    Chunk(ResponseHead, u64),
    Trailer(ResponseHead),
}

impl Parser {
    /// A parser that hashes bodies.
    pub fn hashing() -> Self {
        Self { hash: Some(HASH_BEGIN), ..Self::default() }
    }

    /// Parses the next bytes of a connection, and calls `done` for each answer that ends in them.
    /// With `is_head`, answers have no bodies. `keep` gets the bytes of bodies. Parsers of several
    /// connections may share `memory`.
    ///
    /// # Errors
    /// An answer cannot be read. The rest of the connection cannot be read, either.
    pub fn feed(
        &mut self,
        mut input: &[u8],
        is_head: bool,
        memory: &mut HeadCache,
        mut keep: Option<&mut Vec<u8>>,
        mut done: impl FnMut(FinishedResponse),
    ) -> Result<(), Malformed> {
        while !input.is_empty() {
            match self.state {
                State::Head => {
                    let Some((meaning, rest)) = self.head(input, is_head, memory)? else { break };
                    input = rest;
                    self.begin(meaning, &mut done);
                }
                State::Bytes(meaning, left) | State::Chunk(meaning, left) => {
                    let here = left.min(input.len() as u64);
                    let (body, rest) = input.split_at(here as usize);
                    if matches!(self.state, State::Chunk(..)) {
                        check_chunk_end(left, body)?;
                    }
                    self.advance(meaning, left, body, keep.as_deref_mut(), &mut done);
                    input = rest;
                }
                State::UntilClose(_) => {
                    self.hash_body(input);
                    if let Some(keep) = keep {
                        keep.extend_from_slice(input);
                    }
                    break;
                }
                State::ChunkLine(meaning) => {
                    let Some(rest) = self.line(input)? else { break };
                    input = rest;
                    self.state = match chunk_bytes(&self.partial)? {
                        0 => State::Trailer(meaning),
                        bytes => State::Chunk(meaning, bytes.saturating_add(2)),
                    };
                    self.partial.clear();
                }
                State::Trailer(meaning) => {
                    let Some(rest) = self.line(input)? else { break };
                    input = rest;
                    if self.partial.is_empty() {
                        self.end(meaning, &mut done);
                    }
                    self.partial.clear();
                }
            }
        }
        Ok(())
    }

    /// Call it when the server has closed its side. Returns the answer that ends with this, if
    /// there is one.
    pub fn close(&mut self) -> Option<FinishedResponse> {
        match self.state {
            State::UntilClose(meaning) => {
                let body_hash = self.hash.unwrap_or_default();
                Some(FinishedResponse { status: meaning.status, closes: true, body_hash })
            }
            _ => None,
        }
    }

    /// Whether no byte of the next answer has arrived.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Head) && self.partial.is_empty()
    }

    /// The next head, and the input behind it. `None` if the head has not arrived whole.
    fn head<'a>(
        &mut self,
        input: &'a [u8],
        is_head: bool,
        memory: &mut HeadCache,
    ) -> Result<Option<(ResponseHead, &'a [u8])>, Malformed> {
        if self.partial.is_empty()
            && let Some(meaning) = memory.parsed_head
            && let Some(rest) = input.strip_prefix(&memory.head[..])
        {
            return Ok(Some((meaning, rest)));
        }
        let before = self.partial.len();
        let whole: &[u8] = if before == 0 {
            input
        } else {
            self.partial.extend_from_slice(input);
            &self.partial
        };
        let Some((bytes, meaning)) = parse(whole, is_head)? else {
            if whole.len() > HEAD_BYTES_MAX {
                return Err(Malformed::LongHead);
            }
            if before == 0 {
                self.partial.extend_from_slice(input);
            }
            return Ok(None);
        };
        // The limit also holds for a head that arrives in a single read.
        if bytes > HEAD_BYTES_MAX {
            return Err(Malformed::LongHead);
        }
        memory.head.clear();
        memory.head.extend_from_slice(&whole[..bytes]);
        memory.parsed_head = Some(meaning);
        self.partial.clear();
        Ok(Some((meaning, &input[bytes - before..])))
    }

    fn begin(&mut self, meaning: ResponseHead, done: &mut impl FnMut(FinishedResponse)) {
        match meaning.body {
            // An interim answer: the final one follows.
            _ if meaning.status < 200 => {}
            Body::Bytes(0) => self.end(meaning, done),
            Body::Bytes(bytes) => self.state = State::Bytes(meaning, bytes),
            Body::Chunked => self.state = State::ChunkLine(meaning),
            Body::UntilClose => self.state = State::UntilClose(meaning),
        }
    }

    /// Takes the next bytes of a body or a chunk of which `left` bytes are still to come.
    fn advance(
        &mut self,
        meaning: ResponseHead,
        left: u64,
        body: &[u8],
        keep: Option<&mut Vec<u8>>,
        done: &mut impl FnMut(FinishedResponse),
    ) {
        let is_chunk = matches!(self.state, State::Chunk(..));
        // The last two bytes of a chunk are its line end.
        let wanted = if is_chunk { left.saturating_sub(2) } else { left };
        let content = &body[..body.len().min(wanted as usize)];
        self.hash_body(content);
        if let Some(keep) = keep {
            keep.extend_from_slice(content);
        }
        let left = left - body.len() as u64;
        match (is_chunk, left) {
            (true, 0) => self.state = State::ChunkLine(meaning),
            (true, left) => self.state = State::Chunk(meaning, left),
            (false, 0) => self.end(meaning, done),
            (false, left) => self.state = State::Bytes(meaning, left),
        }
    }

    fn end(&mut self, meaning: ResponseHead, done: &mut impl FnMut(FinishedResponse)) {
        self.state = State::Head;
        let body_hash = self.hash.unwrap_or_default();
        self.hash = self.hash.map(|_| HASH_BEGIN);
        done(FinishedResponse { status: meaning.status, closes: meaning.closes, body_hash });
    }

    fn hash_body(&mut self, content: &[u8]) {
        self.hash = self.hash.map(|hash| hash_on(hash, content));
    }

    /// Takes the next line into `partial`, without its end. Returns the input behind it, or `None`
    /// if the line has not arrived whole.
    fn line<'a>(&mut self, input: &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
        let end = memchr::memchr(b'\n', input);
        let here = end.unwrap_or(input.len());
        if self.partial.len() + here > CHUNK_LINE_BYTES_MAX {
            return Err(Malformed::LongLine);
        }
        self.partial.extend_from_slice(&input[..here]);
        let Some(end) = end else { return Ok(None) };
        if self.partial.last() == Some(&b'\r') {
            self.partial.pop();
        }
        Ok(Some(&input[end + 1..]))
    }
}

/// The length of a head, and its meaning. `None` if the head has not arrived whole.
fn parse(bytes: &[u8], is_head: bool) -> Result<Option<(usize, ResponseHead)>, Malformed> {
    // A small array of fields is made faster than a large one.
    match parse_some::<HEADERS_USUAL>(bytes, is_head) {
        Err(Malformed::ManyFields) => parse_some::<HEADERS_MAX>(bytes, is_head),
        parsed => parsed,
    }
}

fn parse_some<const HEADERS: usize>(
    bytes: &[u8],
    is_head: bool,
) -> Result<Option<(usize, ResponseHead)>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed::ManyFields),
        Err(_) => return Err(Malformed::NotHttp),
    };
    let status = response.code.ok_or(Malformed::NotHttp)?;
    // HTTP/1.0 closes unless it says otherwise.
    let mut closes = response.version == Some(0);
    let mut body = Body::UntilClose;
    for header in response.headers.iter() {
        let value = header.value.trim_ascii();
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = Body::Bytes(number(value, 10).ok_or(Malformed::Length)?);
            body = match body {
                Body::Chunked => Body::Chunked,
                Body::Bytes(_) if body != length => return Err(Malformed::Length),
                _ => length,
            };
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed::Coding);
            }
            body = Body::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if option.eq_ignore_ascii_case(b"close") {
                    closes = true;
                } else if option.eq_ignore_ascii_case(b"keep-alive") {
                    closes = false;
                }
            }
        }
    }
    if is_head || status == 204 || status == 304 {
        body = Body::Bytes(0);
    }
    closes |= body == Body::UntilClose && status >= 200;
    Ok(Some((length, ResponseHead { status, body, closes })))
}

fn chunk_bytes(line: &[u8]) -> Result<u64, Malformed> {
    let end = line.iter().position(|byte| *byte == b';').unwrap_or(line.len());
    number(line[..end].trim_ascii(), 16).ok_or(Malformed::Chunk)
}

/// A number of digits alone. Rust would also take a sign.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let text = str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
    u64::from_str_radix(text, radix).ok()
}

/// Checks the line end of a chunk. `body` has the next of the chunk's `left` bytes, of which the
/// last two are the line end.
fn check_chunk_end(left: u64, body: &[u8]) -> Result<(), Malformed> {
    let data = left.saturating_sub(2).min(body.len() as u64) as usize;
    let expected = &b"\r\n"[2 - left.min(2) as usize..];
    if expected.starts_with(&body[data..]) { Ok(()) } else { Err(Malformed::Chunk) }
}
