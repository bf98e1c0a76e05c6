"""The instruments of the commands here: start a server, load it, and read one number.

Owns every process and socket of a measurement, and ends only what it started. Knows no figure, no
target and no file of a run. Linux only; Python 3.11's standard library, `wrk` and `taskset`.
"""

import contextlib
import ctypes
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import tempfile
import threading
import time

STARTED_WITHIN_S = 30
STOPPED_WITHIN_S = 30
ANSWERED_WITHIN_S = 10
COUNTED_WITHIN_S = 30
COUNTERS_ASKED_EVERY_S = 2
LISTENING = re.compile(r"(?:listening|Serving HTTP) on http://([0-9.]+):([0-9]+)")
COUNTERS = re.compile(rb"status: ([^\n]*)\n")
COUNTER = re.compile(r"(\w+)=(?:\[([^\]]*)\]|(\S+))")
WATCHED = re.compile(rb"^tfd:\s*(\d+)", re.MULTILINE)
PIECE_BYTES = 1 << 20
SECONDS_PER = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


class Failure(Exception):
    """A measurement that did not happen, or whose number means nothing."""


# Servers.


class Server:
    """A server process, from exec until it is stopped; use it in a `with`.

    `cpus` is a list for taskset, such as "0"; None leaves the process free. Standard error goes to
    the file `log`, where the address is read: a pipe that nobody empties would block the server.
    """

    def __init__(self, command, log, env, cpus=None, started_within_s=STARTED_WITHIN_S):
        pin = ["taskset", "--cpu-list", cpus] if cpus else []
        self.command = [*pin, *command]
        self.log = log
        self.env = env
        self.started_within_s = started_within_s
        self.process = None
        self.address = None
        self.started_at_s = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def start(self):
        with open(self.log, "wb") as log:
            self.started_at_s = time.perf_counter()
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=self.env,
            )
        try:
            self.address = self._wait_until_listening()
        except BaseException:
            self.stop()
            raise
        return self

    def _wait_until_listening(self):
        while time.perf_counter() < self.started_at_s + self.started_within_s:
            found = LISTENING.search(self._read_log())
            if found:
                return found[1], int(found[2])
            if self.process.poll() is not None:
                raise Failure(f"{self._name()} ended at start: {self._last_words()}")
            time.sleep(0.001)
        raise Failure(f"{self._name()} does not listen after {self.started_within_s} s")

    def stop(self):
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Also when a second Ctrl-C ends the wait.
            self.process.kill()
            self.process.wait()

    def check_alive(self):
        if self.process.poll() is not None:
            raise Failure(f"{self._name()} died: {self._last_words()}")

    def cpu_s(self):
        """User and system time of all its threads, also the ended ones, to the nanosecond.

        The same sum as `utime + stime` in /proc/PID/stat, which counts in steps of 10 ms.
        """
        clock = ctypes.c_int()
        if ctypes.CDLL(None).clock_getcpuclockid(self.process.pid, ctypes.byref(clock)) != 0:
            raise Failure(f"no CPU clock for {self._name()}")
        return time.clock_gettime(clock.value)

    def rss_bytes(self):
        """Resident memory, counted page by page; /proc/PID/status may lag behind."""
        return self.memory_kib()["Rss"] * 1024

    def memory_kib(self):
        """What the kernel says of its memory, by kind: `Rss`, `Anonymous` and so on."""
        with open(f"/proc/{self.process.pid}/smaps_rollup", encoding="ascii") as rollup:
            kinds = re.findall(r"^(\w+):\s+(\d+) kB", rollup.read(), re.MULTILINE)
        return {kind: int(kibibytes) for kind, kibibytes in kinds}

    def forget_peak(self):
        """Has `peak_bytes` begin anew."""
        with open(f"/proc/{self.process.pid}/clear_refs", "w", encoding="ascii") as refs:
            refs.write("5")

    def peak_bytes(self):
        """The most resident memory that it has had."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return int(re.search(r"^VmHWM:\s+(\d+) kB", status.read(), re.MULTILINE)[1]) * 1024

    def mappings(self):
        with open(f"/proc/{self.process.pid}/maps", "rb") as maps:
            return sum(1 for _ in maps)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def watched(self):
        """The descriptors that each of its epolls watches, in a set for each."""
        epolls = set()
        folder = f"/proc/{self.process.pid}/fdinfo"
        for descriptor in os.listdir(folder):
            # It may be closed by now.
            with contextlib.suppress(OSError), open(f"{folder}/{descriptor}", "rb") as info:
                epolls.add(frozenset(map(int, WATCHED.findall(info.read()))))
        # An epoll may have several descriptors, and most descriptors are none.
        return epolls - {frozenset()}

    def rss_settled_bytes(self):
        """Resident memory once it stands still for a fifth of a second, or after five seconds."""
        last = self.rss_bytes()
        for _ in range(25):
            time.sleep(0.2)
            now = self.rss_bytes()
            if now == last:
                break
            last = now
        return last

    def counters(self):
        """What a guesthouse counts, asked for by SIGUSR1: numbers by name, lists as their text."""
        read_from = os.path.getsize(self.log)
        started_at_s = time.perf_counter()
        asked = 0
        while (waited_s := time.perf_counter() - started_at_s) < COUNTED_WITHIN_S:
            self.check_alive()
            # More than once, since a log that is flooded loses lines.
            if waited_s >= asked * COUNTERS_ASKED_EVERY_S:
                self.process.send_signal(signal.SIGUSR1)
                asked += 1
            time.sleep(0.001)
            with open(self.log, "rb") as log:
                log.seek(read_from)
                line = COUNTERS.search(log.read())
            if line:
                found = COUNTER.findall(line[1].decode())
                return {name: int(plain) if plain.isdigit() else listed or plain
                        for name, listed, plain in found}
        raise Failure(f"{self._name()} logs no counters within {COUNTED_WITHIN_S} s")

    def _read_log(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def _last_words(self):
        lines = self._read_log().strip().splitlines()
        # What is wrong with a command line comes before a lesson on how to write one.
        wrong = [line for line in lines if line.startswith("error: ")]
        return " / ".join(wrong or lines[-3:]) or f"exit code {self.process.returncode}"

    def _name(self):
        return self.log.stem


def raise_file_limit(wanted):
    """Servers inherit the raised limit, so that a floor that does not raise its own gets it too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise Failure(f"the hard limit of open files is {hard}, {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# A client with one connection. It is this small because its time is part of the wall time measured.


def connect(address):
    client = socket.create_connection(address, timeout=ANSWERED_WITHIN_S)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def exchange(client, path):
    """One GET on a kept-alive connection: (status, body)."""
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("ascii"))
    received = b""
    while b"\r\n\r\n" not in received:
        received += receive(client)
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    if not length:
        raise Failure(f"{path} answers without Content-Length")
    while len(body) < int(length[1]):
        body += receive(client)
    return int(head[9:12]), body


def receive(client):
    piece = client.recv(65536)
    if not piece:
        raise Failure("the server closed the connection before its answer was whole")
    return piece


def get(address, path):
    """One GET: (status, body), however long the body says it is."""
    host, port = address
    client = http.client.HTTPConnection(host, port, timeout=ANSWERED_WITHIN_S)
    with contextlib.closing(client):
        client.request("GET", path)
        response = client.getresponse()
        return response.status, response.read()


# Measurements.


def wrk(address, path, seconds, connections, cpus=None, script=None):
    """Runs wrk with one thread: (requests, seconds, errors), errors being "" or wrk's own words."""
    out = wrk_output(address, path, seconds, connections, cpus, script)
    done = re.search(r"(\d+) requests in ([0-9.]+)(us|ms|s|m)\b", out)
    if not done or int(done[1]) == 0:
        raise Failure(f"wrk: {out.strip()}")
    errors = re.findall(r"^\s*((?:Socket errors|Non-2xx).*)$", out, re.MULTILINE)
    return int(done[1]), float(done[2]) * SECONDS_PER[done[3]], "; ".join(errors)


def wrk_output(address, path, seconds, connections, cpus, script):
    lua = ["-s", str(script)] if script else []
    url = f"http://{address[0]}:{address[1]}{path}"
    load = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *lua, url]
    return run_pinned(load, cpus, seconds)


def run_pinned(command, cpus, seconds):
    """What a generator prints, which is to run for `seconds`."""
    pin = ["taskset", "--cpu-list", cpus] if cpus else []
    try:
        run = subprocess.run(
            [*pin, *command], capture_output=True, text=True, timeout=seconds + 30, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise Failure(f"{command[0]} did not end within {late.timeout} s") from late
    if run.returncode != 0:
        raise Failure(f"{command[0]}: {(run.stderr or run.stdout).strip()}")
    return run.stdout


def children_cpu_s():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def wrk_itself(address, path, seconds, connections, cpus, script):
    """What wrk takes and says, in the quantities of `bench_itself`."""
    before_s = children_cpu_s()
    out = wrk_output(address, path, seconds, connections, cpus, script)
    cpu_s = children_cpu_s() - before_s
    done = re.search(r"(\d+) requests in ", out)
    rate = re.search(r"Requests/sec: *([0-9.]+)", out)
    p50 = re.search(r"50% *([0-9.]+)(us|ms|s)\b", out)
    if not (done and rate and p50):
        raise Failure(f"wrk: {out.strip()}")
    return {
        "client_cpu_us_per_request": cpu_s * 1e6 / int(done[1]),
        "requests_per_s": float(rate[1]),
        "p50_us": float(p50[1]) * SECONDS_PER[p50[2]] * 1e6,
        "errors": "; ".join(re.findall(r"^\s*((?:Socket errors|Non-2xx).*)$", out, re.MULTILINE)),
    }


def bench_summary(program, address, path, seconds, cpus, flags):
    """One round of `guesthouse bench`, as docs/bench.md describes a `summary`."""
    url = f"http://{address[0]}:{address[1]}{path}"
    with tempfile.TemporaryDirectory(prefix="guesthouse-bench-") as scratch:
        file = f"{scratch}/run.json"
        length = ["--rounds", "1", "--duration", f"{seconds}s"]
        run_pinned([program, "bench", *length, "--json", file, *flags, url], cpus, seconds)
        with open(file, encoding="utf-8") as text:
            return json.load(text)["cases"][0]["targets"][0]["summary"]


def bench_itself(program, address, path, seconds, cpus, flags):
    """One round of `guesthouse bench`: what it takes by its own account, and what it says."""
    summary = bench_summary(program, address, path, seconds, cpus, flags)
    errors = summary["errors"]["total"]
    return {
        "client_cpu_us_per_request": summary["client_cpu_us_per_req"],
        "requests_per_s": summary["req_per_s"],
        "p50_us": summary["p50_us"],
        "errors": f"{errors} requests failed" if errors else "",
    }


def sequential_wall_us(address, path, seconds):
    """Wall time of each request on one connection, one after the other, in microseconds."""
    times = []
    with connect(address) as client:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 5:
            start_ns = time.perf_counter_ns()
            status, _ = exchange(client, path)
            times.append((time.perf_counter_ns() - start_ns) / 1000)
            if status != 200:
                raise Failure(f"{path} answers {status}")
    return times


def idle_connections_bytes(server, path, count, rest_s):
    """Resident memory (before, after) `count` connections that were used once and stay open.

    A server may give memory of a connection back some time after its last request: `rest_s` is how
    long it has for that.
    """
    with connect(server.address) as client:
        # The first requests also pay for pools and arenas that no later connection pays for.
        for _ in range(1000):
            exchange(client, path)
    before = server.rss_settled_bytes()
    with contextlib.ExitStack() as opened:
        clients = []
        for _ in range(count):
            client = opened.enter_context(connect(server.address))
            status, _ = exchange(client, path)
            if status != 200:
                raise Failure(f"connection {len(clients) + 1}: status {status}")
            clients.append(client)
        time.sleep(rest_s)
        after = server.rss_settled_bytes()
        closed = sum(1 for client in clients if is_closed(client))
    if closed:
        raise Failure(f"the server closed {closed} of {count} idle connections")
    return before, after


def upload_wall_s(address, path, total):
    """Sends a body of so many bytes, and reads what comes back of it meanwhile: seconds.

    What comes back has to be all of it in upper case, of which the length and the last bytes are
    looked at: to look at everything would take longer than to send it.
    """
    piece = b"a" * min(total, PIECE_BYTES)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {total}\r\n\r\n"
    room = bytearray(PIECE_BYTES)
    with connect(address) as client:
        start_s = time.perf_counter()
        client.sendall(head.encode("ascii"))
        sender = threading.Thread(target=send_body, args=(client, piece, total), daemon=True)
        sender.start()
        got, last = 0, b""
        # Its pieces have sizes between them.
        while not last.endswith(b"A\r\n0\r\n\r\n"):
            count = client.recv_into(room)
            if count == 0:
                raise Failure(f"{path}: closed after {got} bytes of {total}")
            got += count
            last = (last + bytes(room[max(count - 8, 0) : count]))[-8:]
        wall_s = time.perf_counter() - start_s
        sender.join()
    if not total < got < total * 1.01 + 1024:
        raise Failure(f"{path}: {got} bytes came back of {total}")
    return wall_s


def send_body(client, piece, total):
    left = total
    # The reader says what is wrong with a connection that breaks.
    with contextlib.suppress(OSError):
        while left:
            client.sendall(piece[:left])
            left -= min(left, len(piece))


def is_closed(client):
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def first_success_s(server, path):
    """Seconds from exec to the first 200, for a server that was just started."""
    while time.perf_counter() < server.started_at_s + server.started_within_s:
        with contextlib.suppress(OSError):
            status, _ = get(server.address, path)
            if status == 200:
                return time.perf_counter() - server.started_at_s
        time.sleep(0.001)
    raise Failure(f"no 200 from {path} within {server.started_within_s} s of the start")
