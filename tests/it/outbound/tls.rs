//! Requests of guests by TLS: whom they trust, and HTTP/2.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
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

use super::{assert_code, fetch, fetch_with, good, setup};
use crate::component::assert_as_new;
use crate::host::Host;

/// A server that says by which version it was asked.
struct Secure {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// Its certificate, which is its own root.
    pem: String,
}

/// What a server that speaks HTTP/2 by hand says to a request.
#[derive(Clone, Copy)]
struct Said {
    frames: &'static [u8],
    /// Whether it says that again and again.
    is_endless: bool,
}

impl Secure {
    /// A server of this name, which speaks these protocols.
    fn start(name: &str, protocols: &[&[u8]]) -> Secure {
        Self::start_with(name, protocols, None, 2)
    }

    /// One of HTTP/2, which says this.
    fn saying(said: Said) -> Secure {
        Self::start_with("localhost", &[b"h2"], Some(said), 2)
    }

    /// One that sends so many certificates beside its own, all of one name or each of its own.
    fn with_others(others: usize, is_one_name: bool) -> Secure {
        let other = |number: usize| {
            let mut params = rcgen::CertificateParams::new([]).expect("no names");
            let name = if is_one_name { 0 } else { number };
            params.distinguished_name.push(rcgen::DnType::CommonName, format!("ca {name}"));
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let key = rcgen::KeyPair::generate().expect("a key");
            params.self_signed(&key).expect("a certificate").der().clone()
        };
        Self::made("localhost", &[], None, 2, (0..others).map(other).collect())
    }

    fn start_with(name: &str, protocols: &[&[u8]], said: Option<Said>, tickets: usize) -> Secure {
        Self::made(name, protocols, said, tickets, Vec::new())
    }

    fn made(
        name: &str,
        protocols: &[&[u8]],
        said: Option<Said>,
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
            runtime.expect("a runtime").block_on(serve(listener, config, said, counted));
        });
        Secure { address, connections, pem: cert.pem() }
    }

    fn url(&self, name: &str) -> String {
        format!("https://{name}:{}/", self.address.port())
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(
    listener: std::net::TcpListener,
    config: ServerConfig,
    said: Option<Said>,
    counted: Arc<AtomicUsize>,
) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        counted.fetch_add(1, Ordering::SeqCst);
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // Some clients do not trust it.
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            if let Some(said) = said {
                // The client may go at any time.
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

/// Waits for a request, says something, and stays until the client goes (RFC 9113, 3.4 and 4.1).
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
        if !said.is_endless {
            break;
        }
    }
    while stream.read_buf(&mut seen).await? > 0 {}
    Ok(())
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let authority = match request.version() {
        Version::HTTP_2 => request.uri().authority().map(ToString::to_string),
        _ => request.headers().get("host").map(|it| String::from_utf8_lossy(it.as_bytes()).into()),
    };
    let has_host = request.headers().contains_key("host");
    let text = format!("{:?} {} {has_host}", request.version(), authority.unwrap_or_default());
    Ok(Response::new(Full::from(text)))
}

/// A host whose probe may send to all of this machine by TLS, and trusts this certificate.
#[track_caller]
fn trusting(pem: &str, folder: &Path) -> Host {
    let file = folder.join("roots.pem");
    std::fs::write(&file, pem).expect("a file");
    let allow = "probe=https://localhost:*";
    let host = setup(&["--allow-outbound", allow, "--workers", "1"]);
    let host = host.env("SSL_CERT_FILE", file.to_str().expect("a path in UTF-8")).start();
    host.settled();
    host
}

#[test]
fn many_requests_share_one_connection_of_http2() {
    let server = Secure::start("localhost", &[b"h2", b"http/1.1"]);
    let folder = tempfile::tempdir().expect("a folder");
    let host = trusting(&server.pem, folder.path());
    let url = server.url("localhost");
    let authority = url.trim_start_matches("https://").trim_end_matches('/');
    // They come before there is a connection.
    let told = fetch_with(&host, "fetch-many", &url, &["x-times: 10"]);
    assert_eq!(told, format!("10 x 200 HTTP/2.0 {authority} false\n"));
    for _ in 0..10 {
        assert_eq!(fetch(&host, &url), format!("200 HTTP/2.0 {authority} false"));
    }
    assert_eq!(server.connections(), 1);
    assert_as_new(&host);
}

#[test]
fn a_server_may_speak_nothing_but_http1() {
    let folder = tempfile::tempdir().expect("a folder");
    for protocols in [&[b"http/1.1".as_slice()][..], &[]] {
        let server = Secure::start("localhost", protocols);
        let host = trusting(&server.pem, folder.path());
        let url = server.url("localhost");
        let authority = url.trim_start_matches("https://").trim_end_matches('/');
        for _ in 0..5 {
            assert_eq!(fetch(&host, &url), format!("200 HTTP/1.1 {authority} true"));
        }
        assert_eq!(server.connections(), 1);
        assert_as_new(&host);
    }
}

#[test]
fn a_server_has_to_be_who_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let (right, wrong) = (Secure::start("localhost", &[]), Secure::start("other.test", &[]));
    // Nobody knows this one, and that one is somebody else.
    for (pem, url) in [(&wrong.pem, right.url("localhost")), (&wrong.pem, wrong.url("localhost"))] {
        let host = trusting(pem, folder.path());
        assert_code(&fetch(&host, &url), "TlsCertificateError");
        assert_as_new(&host);
    }
    let host = trusting(&right.pem, folder.path());
    let plain = good();
    let port = plain.url("").rsplit(':').next().map(str::to_owned).expect("a port");
    let told = fetch(&host, &format!("https://localhost:{port}/"));
    assert!(told.contains("Tls") || told.contains("ConnectionTerminated"), "{told}");
    assert_as_new(&host);
}

/// A stream that is reset without an error has not ended (RFC 9113, 8.1), not even where it could
/// be that the server wants no more of the request. Behind a response that is whole it may do so.
#[test]
fn a_body_of_http2_that_breaks_off_is_not_complete() {
    let broken = b"\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x03\0\0\0\0\0\x01hel\
        \0\0\x04\x03\0\0\0\0\x01\0\0\0\0";
    let whole = b"\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x03\0\x01\0\0\0\x01hel\
        \0\0\x04\x03\0\0\0\0\x01\0\0\0\0";
    let folder = tempfile::tempdir().expect("a folder");
    for behaviour in ["fetch", "fetch-open"] {
        for (frames, is_whole) in [(broken, false), (whole, true)] {
            let server = Secure::saying(Said { frames, is_endless: false });
            let host = trusting(&server.pem, folder.path());
            let url = server.url("localhost");
            let told = fetch_with(&host, behaviour, &url, &["x-method: POST"]);
            match is_whole {
                true => assert_eq!(told, "200 hel", "{behaviour}"),
                // With an upload, it may break off before anybody has seen its head.
                false if behaviour == "fetch-open" && told.contains("ConnectionTerminated") => {}
                false => assert_code(&told, "HttpResponseIncomplete"),
            }
            assert_as_new(&host);
        }
    }
}

/// Of many certificates there are more chains than anybody has time for.
#[test]
fn a_server_sends_no_more_certificates_than_a_chain_has() {
    let folder = tempfile::tempdir().expect("a folder");
    for (others, is_one_name) in [(8, false), (8, true), (9, false), (150, true)] {
        let server = Secure::with_others(others, is_one_name);
        let host = trusting(&server.pem, folder.path());
        let told = fetch(&host, &server.url("localhost"));
        if others > 8 {
            assert_code(&told, "TlsCertificateError");
        } else {
            assert!(told.starts_with("200 "), "{others}: {told}");
        }
        assert_as_new(&host);
    }
}

/// What a server says without end, and no guest gets anything of, ends its connection: interim
/// answers of HTTP/2, and tickets of TLS.
#[test]
fn what_nobody_gets_anything_of_has_an_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let frames = b"\0\0\x05\x01\x04\0\0\0\x01\x08\x03103";
    let interim = Secure::saying(Said { frames, is_endless: true });
    let tickets = Secure::start_with("localhost", &[b"http/1.1"], None, 60_000);
    for server in [interim, tickets] {
        let host = trusting(&server.pem, folder.path());
        let told = fetch(&host, &server.url("localhost"));
        assert!(told.contains("ConnectionTerminated") || told.contains("Protocol"), "{told}");
        assert_as_new(&host);
    }
}
