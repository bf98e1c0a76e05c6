//! The floor under `/native/hello`: "Hello, World!" from hyper alone.
//!
//! Has the build profile, the allocator and the threads of the host: one pinned thread, one
//! current-thread runtime and one `SO_REUSEPORT` listener per worker. It must have nothing of what
//! the host adds (routes, admission, timers, write coalescing), since the comparison measures that.
//!
//! `cargo bench` runs every bench target with `--bench`. This one serves only with `--serve`, so a
//! plain `cargo bench` prints the usage and ends.

use std::convert::Infallible;
use std::io::{self, Error};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::{Builder, LocalOptions};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
A bare hyper server, the floor of the comparison in benches/scenarios/requests.toml.

usage: bare_hyper --serve [--listen ADDR] [--workers N] [--pipeline-flush]

  --serve            serve until killed; without it this text is all
  --listen ADDR      default 127.0.0.1:0, where port 0 picks one
  --workers N        default 1, one pinned thread each
  --pipeline-flush   hyper's own write collection for pipelined requests";

/// Connections that may wait for a worker. The kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

struct Options {
    serve: bool,
    listen: SocketAddr,
    workers: usize,
    pipeline_flush: bool,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("bare_hyper: {reason}\n\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    if !options.serve {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bare_hyper: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        serve: false,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        workers: 1,
        pipeline_flush: false,
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            // Cargo adds `--bench`, a user maybe a filter or `--help`. None asks for a server.
            "--bench" | "--help" => {}
            "--serve" => options.serve = true,
            "--pipeline-flush" => options.pipeline_flush = true,
            "--listen" => {
                options.listen = value()?.parse().map_err(|error| format!("--listen: {error}"))?;
            }
            "--workers" => {
                options.workers =
                    value()?.parse().map_err(|error| format!("--workers: {error}"))?;
            }
            _ if !arg.starts_with('-') => {}
            _ => return Err(format!("unknown argument {arg}")),
        }
    }
    if options.workers == 0 {
        return Err("--workers: at least 1".to_owned());
    }
    Ok(options)
}

fn serve(options: &Options) -> io::Result<()> {
    let first = listen(options.listen)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..options.workers {
        listeners.push(listen(address)?);
    }
    let cores = allowed_cores()?;
    let mut threads = Vec::new();
    for (index, listener) in listeners.into_iter().enumerate() {
        let core = cores[index % cores.len()];
        let pipeline_flush = options.pipeline_flush;
        let worker = move || work(listener, core, pipeline_flush);
        threads.push(thread::Builder::new().name(format!("worker-{index}")).spawn(worker)?);
    }
    eprintln!("listening on http://{address}");
    for thread in threads {
        thread.join().map_err(|_| Error::other("a worker panicked"))??;
    }
    Ok(())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The cores that this process may use, so that `taskset` decides where the workers run.
fn allowed_cores() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect())
}

fn work(listener: TcpListener, core: usize, pipeline_flush: bool) -> io::Result<()> {
    let mut own_core = CpuSet::new();
    own_core.set(core);
    sched_setaffinity(None, &own_core)?;
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(accept(listener, pipeline_flush))
}

async fn accept(listener: TcpListener, pipeline_flush: bool) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut http = http1::Builder::new();
    http.pipeline_flush(pipeline_flush);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // There are probably no file descriptors left. To try again at once would spin.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        if stream.set_nodelay(true).is_err() {
            continue; // The client is gone already.
        }
        // Without an async block around it, which would hold the connection twice and raise the
        // floor for memory. The load generator counts connections that end badly.
        tokio::task::spawn_local(http.serve_connection(TokioIo::new(stream), service_fn(hello)));
    }
}

async fn hello(_request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"Hello, World!")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}
