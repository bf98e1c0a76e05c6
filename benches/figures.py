"""What is compared: every figure, its cases, its target, and how one case is measured.

A figure gives one number a round; who runs the rounds and which servers there are is compare.py's
business. A measurement gets the bench, asks it for a server by name, and returns quantities by
name, among them `errors`: "" or what went wrong, which fails the figure.
"""

import contextlib
import dataclasses
import os
import pathlib
import statistics
import time
from collections.abc import Callable

import instruments
from instruments import Failure

SERVER_CPU = "0"
CLIENT_CPU = "1"
WARM_UP_S = 1
LARGE_LOADED_WITHIN_S = 300
IDLE_CONNECTIONS = 10_000
STREAM_BYTES = 10 << 20
LONG_STREAM_BYTES = 1 << 30
STREAMS_AT_LEAST = 5
# What is idle may be put away some seconds after its last request.
IDLE_REST_S = 5
HELLO = b"Hello, World!"
DEMO_PATHS = ("/hello", "/fib/1", "/plaintext", "/json", "/echo", "/render")


@dataclasses.dataclass(frozen=True)
class Load:
    """How a generator is run: wrk, or `guesthouse bench` with `flags`."""

    connections: int = 50
    cpus: str | None = CLIENT_CPU
    script: pathlib.Path | None = None
    flags: tuple[str, ...] | None = None


STEADY = Load()
UNPINNED = Load(cpus=None)
# A request takes the server 30 us, and a generator a tenth of that: whichever it is, it waits.
SERVER_IS_THE_LIMIT = {"path": "/native/fib/20", "body": b"6765\n"}
PIPELINED = Load(connections=100, script=pathlib.Path(__file__).resolve().parent / "pipeline.lua")


@dataclasses.dataclass(frozen=True)
class Case:
    """One side of a figure: a path of a server, and the body that proves it is the right one."""

    label: str
    server: str
    path: str
    body: bytes | None = HELLO
    load: Load = STEADY


def measure_cpu(bench, case, seconds):
    """CPU time of the server per request while wrk loads it."""
    server, load = bench.server(case.server), case.load
    before_s = server.cpu_s()
    requests, window_s, errors = instruments.wrk(
        server.address, case.path, seconds, load.connections, load.cpus, load.script
    )
    cpu_s = server.cpu_s() - before_s
    server.check_alive()
    return {
        "cpu_us_per_request": cpu_s / requests * 1e6,
        "requests_per_s": requests / window_s,
        "requests": requests,
        "seconds": window_s,
        "errors": errors,
    }


def measure_rate(bench, case, seconds):
    """Requests per second of a server that has a core of its own, and is never out of work."""
    server, load = bench.server(case.server), case.load
    requests, window_s, errors = instruments.wrk(
        server.address, case.path, seconds, load.connections, load.cpus, load.script
    )
    server.check_alive()
    return {
        "requests_per_s": requests / window_s,
        "requests": requests,
        "seconds": window_s,
        "errors": errors,
    }


def measure_generator(bench, case, seconds):
    """What the generator itself takes, and what it says of the server."""
    server, load = bench.server(case.server), case.load
    if load.flags is None:
        reading = instruments.wrk_itself(
            server.address, case.path, seconds, load.connections, load.cpus, load.script
        )
    else:
        program = bench.launches[case.server].command[0]
        flags = ("--connections", str(load.connections), *load.flags)
        reading = instruments.bench_itself(
            program, server.address, case.path, seconds, load.cpus, flags
        )
    server.check_alive()
    return reading


def measure_wall(bench, case, seconds):
    """Median wall time of requests that follow each other on one connection."""
    server = bench.server(case.server)
    with pinned_to(int(CLIENT_CPU)):
        times = instruments.sequential_wall_us(server.address, case.path, seconds)
    server.check_alive()
    return {
        "wall_us": statistics.median(times),
        "wall_us_min": min(times),
        "wall_us_max": max(times),
        "requests": len(times),
        "errors": "",
    }


def measure_idle(bench, case, _seconds):
    """Resident memory per idle connection, in a server of its own: memory does not come back."""
    with bench.launch(case.server) as server:
        before, after = instruments.idle_connections_bytes(
            server, case.path, IDLE_CONNECTIONS, IDLE_REST_S
        )
    return {
        "kib_per_connection": (after - before) / IDLE_CONNECTIONS / 1024,
        "rss_before_bytes": before,
        "rss_after_bytes": after,
        "errors": "",
    }


def measure_stream(bench, case, seconds):
    """Bodies up and down at once, one after the other: the median of their rates."""
    server = bench.server(case.server)
    before_s, end_s, rates = server.cpu_s(), time.perf_counter() + seconds, []
    with pinned_to(int(CLIENT_CPU)):
        while time.perf_counter() < end_s or len(rates) < STREAMS_AT_LEAST:
            wall_s = instruments.upload_wall_s(server.address, case.path, STREAM_BYTES)
            rates.append(STREAM_BYTES / wall_s / 1e6)
    server.check_alive()
    return {
        "mb_per_s": statistics.median(rates),
        "cpu_ms_per_body": (server.cpu_s() - before_s) / len(rates) * 1e3,
        "bodies": len(rates),
        "errors": "",
    }


def measure_stream_memory(bench, case, _seconds):
    """Resident memory that a long body takes at its worst, over what an idle server has."""
    with bench.launch(case.server) as server:
        # The first pays for what every later one finds there.
        instruments.upload_wall_s(server.address, case.path, STREAM_BYTES)
        before = server.rss_settled_bytes()
        server.forget_peak()
        with pinned_to(int(CLIENT_CPU)):
            instruments.upload_wall_s(server.address, case.path, LONG_STREAM_BYTES)
        peak = server.peak_bytes()
    return {
        "mib_over_idle": (peak - before) / 2**20,
        "rss_before_bytes": before,
        "rss_peak_bytes": peak,
        "errors": "",
    }


def measure_start(bench, case, _seconds):
    """Time from exec to the first 200; the case `first` starts without a compile cache."""
    cache = bench.empty_folder() if case.label == "first" else None
    with bench.launch(case.server, cache) as server:
        return {"ms": instruments.first_success_s(server, case.path) * 1000, "errors": ""}


def warm_up(bench, figure):
    for case in figure.cases:
        bench.check(case)
        errors = figure.measure(bench, case, WARM_UP_S)["errors"]
        if errors:
            raise Failure(f"warm-up of {case.label}: {errors}")


def warm_up_large(bench, figure):
    """For a guest that takes half a minute to compile, on the one core that its server has."""
    for case in figure.cases:
        give_up_s = time.monotonic() + LARGE_LOADED_WITHIN_S
        while True:
            try:
                bench.check(case)
                break
            except (Failure, OSError):
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(0.5)
    warm_up(bench, figure)


def fill_cache(bench, _figure):
    """Asks every demo guest once, so that the next start finds all of them compiled."""
    with bench.launch("demo") as server:
        for path in DEMO_PATHS:
            status, _ = instruments.get(server.address, path)
            if status != 200:
                raise Failure(f"{path} answers {status}")


def load_streams(bench, figure):
    """One body through each case, which also has its guest compiled."""
    for case in figure.cases:
        address = bench.server(case.server).address
        instruments.upload_wall_s(address, case.path, STREAM_BYTES)


@contextlib.contextmanager
def pinned_to(cpu):
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def ratio(top, bottom):
    return lambda values: values[top] / values[bottom]


def difference(top, bottom):
    return lambda values: abs(values[top] / values[bottom] - 1)


def generators(name, title, at_most, value, quantity, case_shown, wrk=STEADY, flags=(),
               path="/native/hello", body=HELLO):
    """`guesthouse bench` beside wrk, at the same native route."""
    ours = dataclasses.replace(wrk, script=None, flags=flags)
    cases = (
        Case("bench", "fresh", path, body, load=ours),
        Case("wrk", "fresh", path, body, load=wrk),
    )
    made = value("bench", "wrk")
    return Figure(name, title, at_most, cases, made, measure_generator, quantity,
                  case_shown=case_shown)


def two_workers_over_one(values):
    return (values["fresh x2"] / values["twin x2"]) / (values["fresh"] / values["twin"])


@dataclasses.dataclass(frozen=True)
class Figure:
    """`value` makes the number of a round from `quantity` of every case.

    With neither `at_most` nor `at_least` it has no target, and is there to judge others by.
    """

    name: str
    title: str
    at_most: float | None
    cases: tuple[Case, ...]
    value: Callable[[dict[str, float]], float]
    measure: Callable = measure_cpu
    quantity: str = "cpu_us_per_request"
    shown: str = "{:.3f}"
    case_shown: str = "{:.2f} us"
    prepare: Callable | None = warm_up
    at_least: float | None = dataclasses.field(default=None, kw_only=True)


def pair(label, server, path, body=HELLO, load=STEADY):
    """A guest and its native twin, in the same process."""
    return Case(label, server, path, body, load), Case("twin", server, "/native" + path, body, load)


def component(server, version="02"):
    """The component hello of wasi:http 0.2, and the twin of all that say hello."""
    path = f"/wasi{version}/hello"
    return Case("component", server, path), Case("twin", server, "/native/hello")


def stream():
    """The component that gives a body back as it comes, and its twin."""
    path = "/stream/upper"
    return Case("stream", "fresh", path, None), Case("twin", "fresh", "/native" + path, None)


def python(name, title, value, *cases, shown="{:.0f}/s", at_least=None):
    """The guest `hello` in Python, by the requests that one core takes in a second."""
    return Figure(name, title, None, cases, value, measure_rate, "requests_per_s", shown,
                  "{:.0f}/s", warm_up_large, at_least=at_least)


PYTHON_REUSE = Case("reuse", "python reuse", "/hello")
PYTHON_FRESH = Case("fresh", "python fresh", "/hello")


def wall(name, path, at_most, body, *more_cases):
    title = f"{path}, guest / twin, wall time"
    cases = (*pair("guest", "fresh", path, body), *more_cases)
    return Figure(name, title, at_most, cases, ratio("guest", "twin"), measure_wall, "wall_us")


FIGURES = (
    Figure(
        "noise", "bare hyper / itself, CPU", None,
        (Case("one", "bare", "/"), Case("other", "bare again", "/")), ratio("one", "other"),
    ),
    Figure(
        "reuse", "/hello reuse / twin, CPU", 1.05,
        pair("reuse", "reuse", "/hello"), ratio("reuse", "twin"),
    ),
    Figure(
        "fresh", "/hello fresh / twin, CPU (aim 1.4)", 1.6,
        pair("fresh", "fresh", "/hello"), ratio("fresh", "twin"),
    ),
    Figure(
        "two-workers", "fresh / twin, 2 workers over 1 worker", 1.1,
        (
            *pair("fresh", "fresh", "/hello"),
            Case("fresh x2", "fresh x2", "/hello", load=UNPINNED),
            Case("twin x2", "fresh x2", "/native/hello", load=UNPINNED),
        ),
        two_workers_over_one,
    ),
    Figure(
        "wasi02-fresh", "/wasi02/hello fresh / twin, CPU (aim 2.0)", 3.0,
        component("fresh"), ratio("component", "twin"),
    ),
    Figure(
        "wasi02-reuse", "/wasi02/hello reuse / twin, CPU (aim 1.3)", 1.6,
        component("reuse"), ratio("component", "twin"),
    ),
    Figure(
        "wasi02-fresh-serve", "the component fresh / in wasmtime serve, CPU", 0.6,
        (component("fresh")[0], Case("serve", "serve fresh", "/")), ratio("component", "serve"),
    ),
    Figure(
        "wasi02-reuse-serve", "the component reuse / in wasmtime serve, CPU", 0.6,
        (component("reuse")[0], Case("serve", "serve reuse", "/")), ratio("component", "serve"),
    ),
    Figure(
        "wasi03-fresh", "/wasi03/hello fresh / twin, CPU (aim 2.5)", 4.0,
        component("fresh", "03"), ratio("component", "twin"),
    ),
    Figure(
        "wasi03-reuse", "/wasi03/hello reuse / twin, CPU (aim 1.6)", 2.0,
        component("reuse", "03"), ratio("component", "twin"),
    ),
    Figure(
        "wasi03-fresh-serve", "the component of 0.3 fresh / in wasmtime serve, CPU", 0.6,
        (component("fresh", "03")[0], Case("serve", "serve03 fresh", "/")),
        ratio("component", "serve"),
    ),
    Figure(
        "wasi03-reuse-serve", "the component of 0.3 reuse / in wasmtime serve, CPU", 0.6,
        (component("reuse", "03")[0], Case("serve", "serve03 reuse", "/")),
        ratio("component", "serve"),
    ),
    Figure(
        "wasi02-two-workers", "component fresh / twin, 2 workers over 1", 1.15,
        (
            Case("fresh", "fresh", "/wasi02/hello"),
            Case("twin", "fresh", "/native/hello"),
            Case("fresh x2", "fresh x2", "/wasi02/hello", load=UNPINNED),
            Case("twin x2", "fresh x2", "/native/hello", load=UNPINNED),
        ),
        two_workers_over_one,
    ),
    python(
        "python-reuse", "hello in Python, reuse, on one core",
        lambda values: values["reuse"], PYTHON_REUSE, at_least=2000,
    ),
    python(
        "python-fresh", "hello in Python, fresh, on one core",
        lambda values: values["fresh"], PYTHON_FRESH,
    ),
    python(
        "python-granian", "hello in Python, reuse / granian, requests/s", ratio("reuse", "peer"),
        PYTHON_REUSE, Case("peer", "granian", "/hello"), shown="{:.3f}",
    ),
    python(
        "python-uvicorn", "hello in Python, reuse / uvicorn, requests/s", ratio("reuse", "peer"),
        PYTHON_REUSE, Case("peer", "uvicorn", "/hello"), shown="{:.3f}",
    ),
    Figure(
        "stream-throughput", "/stream/upper, 10 MiB both ways / twin, bytes/s", None,
        stream(), ratio("stream", "twin"), measure_stream, "mb_per_s",
        case_shown="{:.0f} MB/s", prepare=load_streams, at_least=0.5,
    ),
    Figure(
        "stream-memory", "/stream/upper, 1 GiB both ways, peak over idle", 16.0,
        stream()[:1], lambda values: values["stream"], measure_stream_memory, "mib_over_idle",
        "{:.1f} MiB", "{:.1f} MiB", prepare=load_streams,
    ),
    Figure(
        "pipelined", "/hello reuse / twin, 24 pipelined, CPU", 1.3,
        pair("reuse", "reuse", "/hello", load=PIPELINED), ratio("reuse", "twin"),
    ),
    Figure(
        "native", "/native/hello / bare hyper, CPU", 1.15,
        (Case("native", "fresh", "/native/hello"), Case("bare", "bare", "/")),
        ratio("native", "bare"),
    ),
    Figure(
        "go", "/hello fresh / Go net/http, CPU", 1.0,
        (Case("fresh", "fresh", "/hello"), Case("go", "go", "/")), ratio("fresh", "go"),
    ),
    Figure(
        "go-bare", "Go net/http / bare hyper, CPU", None,
        (Case("go", "go", "/"), Case("bare", "bare", "/")), ratio("go", "bare"),
    ),
    wall("fib", "/fib/35", 1.6, b"9227465\n"),
    # The round trip is in both times and flatters the ratio: the third case says how much it is.
    wall("render", "/render", 2.0, None, Case("round trip", "fresh", "/native/hello")),
    Figure(
        "idle", "idle connection, guesthouse - bare hyper", 2.0,
        (Case("fresh", "fresh", "/hello"), Case("bare", "bare", "/")),
        lambda values: values["fresh"] - values["bare"],
        measure_idle, "kib_per_connection", "{:+.2f} KiB", "{:.2f} KiB", prepare=None,
    ),
    Figure(
        "idle-total", "idle connection, all of its resident memory", 4.0,
        (Case("fresh", "fresh", "/hello"),), lambda values: values["fresh"],
        measure_idle, "kib_per_connection", "{:.2f} KiB", "{:.2f} KiB", prepare=None,
    ),
    Figure(
        "start", "second start, exec to first 200", 300.0,
        (Case("first", "demo", "/hello"), Case("second", "demo", "/hello")),
        lambda values: values["second"],
        measure_start, "ms", "{:.0f} ms", "{:.0f} ms", prepare=fill_cache,
    ),
    generators(
        "generator", "guesthouse bench / wrk, CPU of the generator", 1.0,
        ratio, "client_cpu_us_per_request", "{:.2f} us",
    ),
    generators(
        "generator-pipelined", "the same, 24 pipelined", 0.8,
        ratio, "client_cpu_us_per_request", "{:.2f} us", PIPELINED, ("--pipeline", "24"),
    ),
    generators(
        "agree-rate", "guesthouse bench, requests/s off wrk's", 0.05,
        difference, "requests_per_s", "{:.0f}/s", **SERVER_IS_THE_LIMIT,
    ),
    generators(
        "agree-p50", "guesthouse bench, p50 off wrk's", 0.05,
        difference, "p50_us", "{:.1f} us", **SERVER_IS_THE_LIMIT,
    ),
)
