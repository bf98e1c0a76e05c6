#!/usr/bin/env python3
"""Measures the private memory of the host beside --memory-total, and writes a run to benches/runs.

Every way to use memory that guests and clients have is tried, one after another, twice over. Owns
the command, the guests' folder, the clients and the servers.
"""

import argparse
import contextlib
import csv
import os
import pathlib
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time


BENCHES = pathlib.Path(__file__).resolve().parent
ROOT = BENCHES.parent
SIZES_MIB = (256, 512, 1024)
# What the memory may come to, above that of an idle host without handlers.
RATIO_MAX = 1.1
LOOK_EVERY_S = 0.05
STARTED_WITHIN_S = 60
ANSWERED_WITHIN_S = 10
# Guests of every engine but the concurrent one, by pages of memory. An image of more than 64 KiB is
# mapped.
FILLS = {"fill-1": 1, "fill-2": 2, "fill-17": 17, "fill-5": 5, "fill-1920": 1920}
FILLS |= {"fill-large": 33, "fill-records": 1}
IMAGE_BYTES = 100_000
CLIENTS = 400
WAIT_S = 3.0
REST_S = 1.0
PRIVATE = re.compile(r"^RssAnon:\s*(\d+) kB", re.MULTILINE)


class Failure(Exception):
    """Something that ends the measurement, in words."""


class Server:
    """A running host, within a `with`."""

    def __init__(self, command, log):
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=out)

    def __enter__(self):
        end_s = time.monotonic() + STARTED_WITHIN_S
        while time.monotonic() < end_s:
            self.check_alive()
            text = self.log.read_text(encoding="utf-8", errors="replace")
            if found := re.search(r"listening on http://([0-9.]+):(\d+)\s", text):
                self.address = found[1], int(found[2])
                return self
            time.sleep(LOOK_EVERY_S)
        self.__exit__()
        raise Failure("the host does not start")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def check_alive(self):
        if self.process.poll() is not None:
            text = self.log.read_text(encoding="utf-8", errors="replace")
            raise Failure(f"the host has ended: {text[-1000:]}")


def private_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        found = PRIVATE.search(status.read())
    if not found:
        raise Failure("the kernel does not tell RssAnon")
    return int(found[1]) << 10


class Sampler:
    """Looks at a process every 50 ms; what it is being asked then is `step`."""

    def __init__(self, pid, rows, total_mib):
        self.pid, self.rows, self.total_mib = pid, rows, total_mib
        self.step = "idle"
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.began_s = time.monotonic()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()

    def run(self):
        while not self.is_over.wait(LOOK_EVERY_S):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                at_s = time.monotonic() - self.began_s
                row = (self.total_mib, f"{at_s:.3f}", self.step, private_bytes(self.pid))
                self.rows.append(row)


def make_folder(folder):
    folder.mkdir()
    for name in ("deep", "body", "poll", "fields"):
        (folder / f"{name}.wat").write_text((BENCHES / "ceiling" / f"{name}.wat").read_text())
    fill = (BENCHES / "ceiling" / "fill.wat").read_text()
    for name, pages in FILLS.items():
        text = fill.replace("PAGES", str(pages)).replace("DATA", extra(name))
        (folder / f"{name}.wat").write_text(text)


def extra(name):
    if name == "fill-large":
        return f'(data (i32.const 0) "{"x" * IMAGE_BYTES}")'
    if name != "fill-records":
        return ""
    # Records of functions and a passive segment: a MiB for each instance.
    functions = "".join(f"(func $f{number})" for number in range(12_000))
    elements = " ".join(f"$f{number % 12_000}" for number in range(40_000))
    return f"{functions} (elem func {elements})"


def ask(address, request, clients):
    """Sends a request from each client, waits, and leaves without having read anything."""
    sockets = []
    for _ in range(clients):
        with contextlib.suppress(OSError):
            client = socket.create_connection(address, ANSWERED_WITHIN_S)
            sockets.append(client)
            client.sendall(request)
    time.sleep(WAIT_S)
    for client in sockets:
        client.close()
    time.sleep(REST_S)


def get(name):
    return f"GET /{name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("ascii")


def wait_for_body(name):
    head = f"POST /{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"
    return head.encode("ascii")


def try_everything(address, sampler):
    for turn in (1, 2):
        steps = [("poll", get("poll"), 60), ("body", get("body"), 200)]
        steps += [(name, wait_for_body(name), CLIENTS) for name in (*FILLS, "fields")]
        steps.append(("deep", get("deep"), CLIENTS))
        for name, request, clients in steps:
            sampler.step = f"{name} {turn}"
            ask(address, request, clients)


def measure(program, folder, total_mib, scratch, rows):
    """The private memory of an idle host, of as many connections, and the most of a busy one."""
    flags = ["--listen", "127.0.0.1:0", "--memory-total", f"{total_mib}MiB"]
    flags += ["--cache-dir", str(scratch / "cache")]
    (scratch / "empty").mkdir(exist_ok=True)
    log = scratch / "log"
    with Server([str(program), "serve", str(scratch / "empty"), *flags], log) as server:
        time.sleep(REST_S)
        idle = private_bytes(server.process.pid)
        clients = []
        for _ in range(CLIENTS):
            with contextlib.suppress(OSError):
                clients.append(socket.create_connection(server.address))
        for client in clients:
            client.sendall(get(""))
        time.sleep(REST_S)
        connections = private_bytes(server.process.pid) - idle
        for client in clients:
            client.close()
    with Server([str(program), "serve", str(folder), *flags], log) as server:
        time.sleep(WAIT_S)
        with Sampler(server.process.pid, rows, total_mib) as sampler:
            try_everything(server.address, sampler)
        server.check_alive()
    most = max(row[3] for row in rows if row[0] == total_mib) - idle
    return idle, connections, most


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    program = ROOT / "target" / "release" / "guesthouse"
    parser.add_argument("--guesthouse", type=pathlib.Path, default=program)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a new folder for the run")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows, is_kept = [], True
    lines = ["| total MiB | idle | connections | most above idle | ratio |"]
    lines.append("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        make_folder(scratch / "guests")
        for total_mib in SIZES_MIB:
            of = (scratch / "guests", total_mib, scratch, rows)
            idle, connections, most = measure(options.guesthouse.resolve(), *of)
            ratio = most / (total_mib << 20)
            is_kept = is_kept and ratio <= RATIO_MAX
            numbers = [idle >> 20, connections >> 20, most >> 20, f"{ratio:.3f}"]
            lines.append("| " + " | ".join(map(str, [total_mib, *numbers])) + " |")
            print(lines[-1], flush=True)
    with open(options.out / "samples.csv", "w", newline="", encoding="ascii") as file:
        writer = csv.writer(file)
        writer.writerow(("total_mib", "at_s", "step", "rss_anon_bytes"))
        writer.writerows(rows)
    (options.out / "ceiling.md").write_text("\n".join(lines) + "\n", encoding="ascii")
    return 0 if is_kept else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"error: {failure}")
