//! A server with TLS and a certificate of its own, which speaks HTTP/1.1 or HTTP/2.
//!
//! Its answers say how it was asked, or are scripted by a test. Of the host it knows only how to
//! make it trust the certificate.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Collected, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::CertifiedKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::server::TlsStream;

use crate::host::Setup;

/// A server that answers with the version of HTTP that was used.
pub struct Secure {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// Its certificate, which is its own root.
    pub pem: String,
}

/// The frames that an HTTP/2 server sends for the first request on a connection.
#[derive(Clone, Copy)]
pub struct Said {
    pub frames: &'static [u8],
    pub then: Then,
}

/// What it does after that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It waits until the client closes.
    Stay,
    /// It sends the frames again and again.
    Repeat,
    /// It closes the connection.
    Close,
}

/// How a server treats its connections.
#[derive(Clone, Default)]
struct Manner {
    /// What is sent on each connection in turn. The last entry is for all further ones.
    said: Vec<Said>,
    /// The number of connections that are closed at once.
    closed: usize,
    /// The number of connections that must be open before anything is sent on any.
    awaited: usize,
}

impl Secure {
    /// A server with this name in its certificate, which speaks these protocols.
    pub fn start(name: &str, protocols: &[&[u8]]) -> Secure {
        Self::start_with(name, protocols, 2)
    }

    /// An HTTP/2 server with scripted frames: the first entry for the first connection, the next
    /// for the second, and the last for all others.
    pub fn saying(said: &[Said]) -> Secure {
        let manner = Manner { said: said.to_vec(), ..Manner::default() };
        Self::made("localhost", &[b"h2"], manner, 2, Vec::new())
    }

    /// An HTTP/2 server that closes this many connections at once, and lets the others wait until
    /// there are this many in all.
    pub fn reluctant(closed: usize, awaited: usize) -> Secure {
        let manner = Manner { closed, awaited, ..Manner::default() };
        Self::made("localhost", &[b"h2"], manner, 2, Vec::new())
    }

    /// A server that sends this many certificates beside its own, all with one name or each with
    /// its own.
    pub fn with_others(others: usize, is_one_name: bool) -> Secure {
        let other = |number: usize| {
            let mut params = rcgen::CertificateParams::new([]).expect("no names");
            let name = if is_one_name { 0 } else { number };
            params.distinguished_name.push(rcgen::DnType::CommonName, format!("ca {name}"));
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let key = rcgen::KeyPair::generate().expect("a key");
            params.self_signed(&key).expect("a certificate").der().clone()
        };
        Self::made("localhost", &[], Manner::default(), 2, (0..others).map(other).collect())
    }

    /// A server that sends this many session tickets for each connection.
    pub fn start_with(name: &str, protocols: &[&[u8]], tickets: usize) -> Secure {
        Self::made(name, protocols, Manner::default(), tickets, Vec::new())
    }

    fn made(
        name: &str,
        protocols: &[&[u8]],
        manner: Manner,
        tickets: usize,
        others: Vec<CertificateDer<'static>>,
    ) -> Secure {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        let CertifiedKey { cert, signing_key } = made;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let config = ServerConfig::builder().with_no_client_auth();
        let mut config = config
            .with_single_cert([vec![cert.der().clone()], others].concat(), key)
            .expect("a certificate");
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.send_tls13_tickets = tickets;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(serve(listener, config, manner, counted));
        });
        Secure { address, connections, pem: cert.pem() }
    }

    pub fn url(&self, name: &str) -> String {
        format!("https://{name}:{}/", self.address.port())
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Makes a host trust this certificate, which is written into the folder, and no other.
pub fn trust(host: Setup, pem: &str, folder: &Path) -> Setup {
    let file = folder.join("roots.pem");
    std::fs::write(&file, pem).expect("a file");
    host.env("SSL_CERT_FILE", file.to_str().expect("a path in UTF-8"))
}

async fn serve(
    listener: std::net::TcpListener,
    config: ServerConfig,
    manner: Manner,
    counted: Arc<AtomicUsize>,
) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let all_there = Arc::new(tokio::sync::Semaphore::new(0));
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let earlier = counted.fetch_add(1, Ordering::SeqCst);
        if earlier < manner.closed {
            continue;
        }
        if earlier + 1 >= manner.awaited {
            all_there.add_permits(1);
        }
        let (acceptor, all_there) = (acceptor.clone(), all_there.clone());
        let said = manner.said.get(earlier).or(manner.said.last()).copied();
        tokio::spawn(async move {
            // Each connection that is open lets the next one go on.
            all_there.acquire().await.expect("it stays open").forget();
            all_there.add_permits(1);
            // Some clients do not trust it.
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            if let Some(said) = said {
                // The client may close at any time.
                let _ = say(&mut stream, said).await;
                return;
            }
            let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let (io, service) = (TokioIo::new(stream), service_fn(answer));
            let _ = match is_h2 {
                true => {
                    http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
                }
                false => http1::Builder::new().serve_connection(io, service).await,
            };
        });
    }
}

/// Waits for a request, sends the scripted frames, and waits until the client closes (RFC 9113, 3.4
/// and 4.1).
async fn say(stream: &mut TlsStream<TcpStream>, said: Said) -> std::io::Result<()> {
    const PREFACE_BYTES: usize = 24;
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const HEADERS: u8 = 1;
    let mut seen = Vec::new();
    let is_asked = |seen: &[u8]| {
        let mut rest = seen.get(PREFACE_BYTES..).unwrap_or_default();
        while let [0, high, low, kind, ..] = rest {
            if *kind == HEADERS {
                return true;
            }
            let bytes = usize::from(u16::from_be_bytes([*high, *low]));
            rest = rest.get(9 + bytes..).unwrap_or_default();
        }
        false
    };
    stream.write_all(SETTINGS).await?;
    while !is_asked(&seen) {
        if stream.read_buf(&mut seen).await? == 0 {
            return Ok(());
        }
    }
    loop {
        stream.write_all(said.frames).await?;
        match said.then {
            Then::Repeat => {}
            Then::Stay => break,
            Then::Close => return stream.shutdown().await,
        }
    }
    while stream.read_buf(&mut seen).await? > 0 {}
    Ok(())
}

/// Answers with the version, the name that the client used, and whether there was a `Host`. Some
/// paths change the answer: `echo` adds the method, the target, some fields and the body; `much` is
/// 16 MiB; `never` gets no answer; `late` ends the stream by a frame of its own in HTTP/2;
/// `nothing` is a 204.
async fn answer(request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    const FIELDS: [&str; 4] = ["content-length", "transfer-encoding", "x-forwarded-proto", "via"];
    let (head, body) = request.into_parts();
    let authority = match head.version {
        Version::HTTP_2 => head.uri.authority().map(ToString::to_string),
        _ => head.headers.get("host").map(|it| String::from_utf8_lossy(it.as_bytes()).into()),
    };
    let has_host = head.headers.contains_key("host");
    let mut text = format!("{:?} {} {has_host}", head.version, authority.unwrap_or_default());
    let path = head.uri.path_and_query().map_or("", |it| it.as_str());
    if path.contains("/never") {
        std::future::pending::<()>().await;
    }
    if path.contains("/much") {
        text = "x".repeat(16 << 20);
    }
    if path.contains("/echo") {
        text = format!("{text}\n{} {path}", head.method);
        for field in FIELDS {
            for value in head.headers.get_all(field) {
                text = format!("{text}\n{field}: {}", String::from_utf8_lossy(value.as_bytes()));
            }
        }
        // A client may close at any time.
        let body = body.collect().await.map_or_else(|_| Bytes::new(), Collected::to_bytes);
        text = format!("{text}\n\n{}", String::from_utf8_lossy(&body));
    }
    let is_late = path.contains("/late");
    let is_empty = path.contains("/nothing");
    let has_none = is_empty || head.method == Method::HEAD;
    let content = if has_none { Full::default() } else { Full::from(text) };
    let mut answer = Response::new(Answer { content, is_late });
    if is_empty {
        *answer.status_mut() = StatusCode::NO_CONTENT;
    }
    Ok(answer)
}

/// An answer's body.
struct Answer {
    content: Full<Bytes>,
    /// Whether its end is reported only when more of it is requested.
    is_late: bool,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.content).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        !self.is_late && self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}
