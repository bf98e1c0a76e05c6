//! A connection on which a test reads the answer as it arrives, in raw bytes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use crate::host::Host;
use crate::patience::patience;

/// A connection, and all bytes that were received on it.
pub struct RawConnection {
    stream: TcpStream,
    came: Vec<u8>,
}

impl RawConnection {
    /// Connects and sends this.
    #[track_caller]
    pub fn open(host: &Host, bytes: impl AsRef<[u8]>) -> RawConnection {
        let stream = TcpStream::connect(host.addr()).expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(patience())).expect("a socket");
        stream.set_write_timeout(Some(patience())).expect("a socket");
        let mut raw = RawConnection { stream, came: Vec::new() };
        raw.send(bytes);
        raw
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the host takes it");
    }

    /// A second handle for sending while this one reads.
    pub fn sender(&self) -> TcpStream {
        self.stream.try_clone().expect("a socket")
    }

    /// Waits until this text was received. Returns all text so far.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        loop {
            let came = String::from_utf8_lossy(&self.came).into_owned();
            if came.contains(text) {
                return came;
            }
            assert!(self.fill(), "closed without {text:?}, after {came:?}");
        }
    }

    /// Reads until the host closes. A reset counts as a close.
    #[track_caller]
    pub fn rest(mut self) -> Vec<u8> {
        while self.fill() {}
        self.came
    }

    /// Reads once. Returns whether there may be more.
    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut bytes = [0; 64 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.came.extend_from_slice(&bytes[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing came for {:?}, after {} bytes", patience(), self.came.len())
            }
            Err(_) => false,
        }
    }
}

/// A body as chunks of this size, without the last chunk.
pub fn chunks(body: &[u8], size: usize) -> Vec<u8> {
    let chunk = |piece: &[u8]| {
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(piece);
        chunk.extend_from_slice(b"\r\n");
        chunk
    };
    body.chunks(size).flat_map(chunk).collect()
}

/// The end of a chunked body.
pub const LAST: &str = "0\r\n\r\n";

/// The body of a raw chunked answer as far as it was received, and whether it is complete.
#[track_caller]
pub fn unchunked(raw: &[u8]) -> (Vec<u8>, bool) {
    let end = raw.windows(4).position(|it| it == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&raw[..end]).to_ascii_lowercase();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    let (mut left, mut body) = (&raw[end + 4..], Vec::new());
    while let Some(at) = left.windows(2).position(|it| it == b"\r\n") {
        let size = String::from_utf8_lossy(&left[..at]);
        let size = usize::from_str_radix(&size, 16).expect("a chunk's size");
        left = &left[at + 2..];
        if size == 0 {
            return (body, left == b"\r\n");
        }
        body.extend_from_slice(&left[..size.min(left.len())]);
        left = left.get(size + 2..).unwrap_or_default();
    }
    (body, false)
}
