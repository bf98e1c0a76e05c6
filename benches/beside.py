"""`/hello` beside callers of guests that try to hold their worker: p50, p99, and what gets past a limit.

    python3 benches/beside.py [--bin target/release/guesthouse] [--seconds 5] [--workers 1] [--only NAME]

For each of `NEIGHBOURS` and each file of guests/hostile that is served, three callers (40 for those
of just below a quantum) ask as fast as they can, while one connection asks for `/hello` 250 times a
second. Prints one line each, and at the end the worst. The callers are a process of their own, so
that they do not hold up who asks for `/hello`; all should have a core beside that of the host.
`past` is how long after `--deadline` or `--cpu-max` (1 s each) an answer came. `turn` is the host's
own count of how long one task has had a worker's thread, in ms of CPU.
"""

import argparse
import multiprocessing
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT_S = 1.0
HELLO_EVERY_S = 0.004
CALLERS, MANY_CALLERS = 3, 40

GET_URI = '(import "http_handler" "get_uri" (func $uri (param i32 i32) (result i32)))'
RANDOM = '(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))'
LOG = '(import "http_handler" "log" (func $log (param i32 i32 i32)))'


def guest(imports, pages, body):
    """A guest that does `body`, and answers with nothing."""
    return (
        f'(module {imports} (memory (export "memory") {pages})\n'
        f'  (func (export "handle_request") (result i64) (local $i i32)\n{body}\n    (i64.const 0)))'
    )


def when_long(body):
    """Does `body` where the path ends in /l."""
    is_long = "(i32.eq (i32.load8_u (i32.sub (call $uri (i32.const 0) (i32.const 100)) (i32.const 1))) (i32.const 0x6c))"
    return f"(if {is_long} (then {body}))"


def spin(rounds):
    return (
        f"(local.set $i (i32.const {rounds})) (loop $l (br_if $l (local.tee $i "
        "(i32.sub (local.get $i) (i32.const 1)))))"
    )


CLOCK = '(import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))'


def starting(rounds):
    """A guest whose start-up code takes so many rounds in each instance, since it reads the clock."""
    start = (
        '(func (export "_initialize") (local $i i32)\n'
        f"(drop (call $clock (i32.const 1) (i64.const 0) (i32.const 64))) {spin(rounds)})"
    )
    return guest(CLOCK, 1, "").removesuffix(")") + start + ")"


FILL = "(memory.fill (i32.const 4096) (i32.const 1) (i32.const 0x7c00000))"
STRAIGHT = "(drop (i32.load (i32.const 0)))\n" * 700_000

# By name: the guest, the paths that its callers ask for in turn, and how many callers there are.
NEIGHBOURS = {
    "fill": (guest(GET_URI, 2000, when_long(FILL)), ["l"], CALLERS),
    "fill-1-of-3": (guest(GET_URI, 2000, when_long(FILL)), ["x", "x", "l"], CALLERS),
    "fill-1-of-4": (guest(GET_URI, 2000, when_long(FILL)), ["x", "x", "x", "l"], CALLERS),
    "random": (
        guest(RANDOM, 1024, "(drop (call $random (i32.const 0) (i32.const 0x4000000)))\n" * 60),
        ["x"],
        CALLERS,
    ),
    "log": (
        guest(LOG, 200, "(call $log (i32.const 2) (i32.const 0) (i32.const 8000000))\n" * 20),
        ["x"],
        CALLERS,
    ),
    "log-1-of-3": (
        guest(GET_URI + LOG, 200, when_long("(call $log (i32.const 2) (i32.const 0) (i32.const 8000000))")),
        ["x", "x", "l"],
        CALLERS,
    ),
    "straight": (guest("", 1, STRAIGHT), ["x"], CALLERS),
    "near-a-quantum": (guest("", 1, spin(600_000)), ["x"], MANY_CALLERS),
    "half-a-quantum": (guest("", 1, spin(300_000)), ["x"], MANY_CALLERS),
    "two-quanta": (guest("", 1, spin(1_500_000)), ["x"], MANY_CALLERS),
    # The same on a faster machine, where 2,800,000 rounds take a millisecond.
    "a-millisecond": (guest("", 1, spin(2_800_000)), ["x"], MANY_CALLERS),
    "start-half": (starting(1_400_000), ["x"], MANY_CALLERS),
    "start-a-millisecond": (starting(2_800_000), ["x"], MANY_CALLERS),
    "start-two": (starting(5_600_000), ["x"], MANY_CALLERS),
}


class Caller(threading.Thread):
    """Asks for some paths in turn, as fast as it can."""

    def __init__(self, port, paths, until):
        super().__init__(daemon=True)
        self.port, self.paths, self.until = port, paths, until
        self.calls, self.longest_s = 0, 0.0

    def run(self):
        connection = None
        while time.monotonic() < self.until:
            path = self.paths[self.calls % len(self.paths)]
            began = time.monotonic()
            try:
                connection = connection or connect(self.port)
                ask(connection, path)
                self.longest_s = max(self.longest_s, time.monotonic() - began)
            except OSError:
                connection = None
            self.calls += 1


def call(port, paths, until, callers, told):
    """In a process of its own: tells how many calls there were, and how long the longest took."""
    all_callers = [Caller(port, paths, until) for _ in range(callers)]
    for caller in all_callers:
        caller.start()
    for caller in all_callers:
        caller.join(30)
    told.send((sum(it.calls for it in all_callers), max(it.longest_s for it in all_callers)))


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port), 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def ask(connection, path):
    """One request: its status. The answer's body has the length that it says."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: guest.test\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        more = connection.recv(65536)
        if not more:
            raise ConnectionError("closed")
        answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    left = int(length[1]) - len(body) if length else 0
    while left > 0:
        left -= len(connection.recv(65536)) or left
    return int(head[9:12])


class Server:
    """A running host with one guest beside `/hello`."""

    def __init__(self, args, name, text):
        self.folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self.folder.name)
        handlers = folder / "handlers"
        handlers.mkdir()
        self.write(handlers, name, text)
        self.log = folder / "log"
        limit = f"{LIMIT_S:.0f}s"
        limits = ["--deadline", limit, "--cpu-max", limit]
        command = [args.bin, "serve", str(handlers), "--listen", "127.0.0.1:0", *limits]
        command += ["--workers", str(args.workers), "--cache-dir", str(folder / "cache")]
        self.process = subprocess.Popen(command, stderr=self.log.open("w"))
        self.port = int(self.wait_for(r"listening on http://[^ ]*:(\d+)\s"))

    def write(self, handlers, name, text):
        (handlers / "hello.wat").write_text(guest("", 1, ""))
        (handlers / f"{name}.wat").write_text(text)

    def wait_for(self, pattern):
        for _ in range(600):
            found = re.findall(pattern, self.log.read_text(errors="replace"))
            if found:
                return found[-1]
            time.sleep(0.05)
        sys.exit(f"no {pattern} in the log:\n{self.log.read_text(errors='replace')[-2000:]}")

    def turn_max_ms(self):
        self.process.send_signal(signal.SIGUSR1)
        return int(self.wait_for(r"turn_max_us=(\d+)\s")) / 1000

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def measure(args, name, text, paths, callers):
    """One line: p50 and p99 of `/hello`, its failures, and what the others got."""
    server = Server(args, name, text)
    try:
        connection = connect(server.port)
        begin = time.monotonic()
        while ask(connection, "/hello") != 200 and time.monotonic() < begin + 60:
            time.sleep(0.05)
        try:
            if ask(connect(server.port), f"/{name}/warm") == 503:
                return None
        except OSError:
            pass
        until = time.monotonic() + args.seconds
        paths = [f"/{name}/{path}" for path in paths]
        results, told = multiprocessing.Pipe(duplex=False)
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=call, args=(server.port, paths, until, callers, told))
        process.start()
        taken, failures, due = [], 0, time.monotonic()
        while due < until:
            time.sleep(max(0, due - time.monotonic()))
            # What was due while another answer was late has waited for it.
            failures += ask(connection, "/hello") != 200
            taken.append(time.monotonic() - due)
            due += HELLO_EVERY_S
        calls, longest_s = results.recv()
        process.join()
        taken.sort()
        p50, p99 = (taken[int(len(taken) * part)] * 1000 for part in (0.5, 0.99))
        past = max(0.0, longest_s - LIMIT_S) * 1000
        return p50, p99, failures, past, server.turn_max_ms(), calls
    finally:
        server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=str(ROOT / "target/release/guesthouse"))
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    rows = dict(NEIGHBOURS)
    for file in sorted((ROOT / "guests/hostile").glob("*.wat")):
        rows[file.stem] = (file.read_text(), ["x"], CALLERS)
    worst = [0.0] * 5
    print(f"{'beside':22}{'p50 ms':>9}{'p99 ms':>9}{'failed':>8}{'past ms':>9}{'turn ms':>10}{'calls':>9}")
    for name, (text, paths, callers) in rows.items():
        if args.only not in name:
            continue
        row = measure(args, name, text, paths, callers)
        if row is None:
            print(f"{name:22} is not served", flush=True)
            continue
        p50, p99, failures, past, piece, calls = row
        worst = [max(pair) for pair in zip(worst, row)]
        print(f"{name:22}{p50:9.2f}{p99:9.2f}{failures:8}{past:9.1f}{piece:10.2f}{calls:9}", flush=True)
    print(f"{'worst':22}{worst[0]:9.2f}{worst[1]:9.2f}{worst[2]:8}{worst[3]:9.1f}{worst[4]:10.2f}")


if __name__ == "__main__":
    main()
