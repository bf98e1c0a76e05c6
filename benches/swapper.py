"""Guests that are replaced while they are served, and the clients that watch it.

Owns what is in the replaced file, and how it is replaced: by a rename, as careful tools do, and by
writing it in place, as `cp` does, in turn. Knows no figure and starts no server.
"""

import collections
import contextlib
import os
import select
import threading
import time

import instruments
from crowd import Caller
from instruments import ANSWERED_WITHIN_S, Failure

CONNECTIONS = 50
VERSIONS = 100
SEEN_WITHIN_S = 30
GREETING = b"Hello, World!"


def place(file, content, in_place):
    """Puts content into the file, and gives the moment at which that was about to be complete."""
    if in_place:
        with open(file, "wb", buffering=0) as out:
            out.write(content)
            placed_s = time.perf_counter()
        return placed_s
    # Hidden, so that it is not taken for a guest.
    new = file.with_name(f".{file.name}.new")
    new.write_bytes(content)
    placed_s = time.perf_counter()
    os.replace(new, file)
    return placed_s


# How long until a new version is served.


class Hello:
    """The demo guest `hello` with another text of the same length: other bytes, the same work."""

    def __init__(self, file):
        self.file = file
        self.made = 0
        self.module = None

    def new(self):
        """(module, body), never made before."""
        if not self.module:
            self.module = self.read()
        self.made += 1
        body = b"drop %08d" % self.made
        return self.module.replace(GREETING, body), body

    def read(self):
        if not self.file.is_file():
            raise Failure(f"no {self.file.name}: a build of guesthouse leaves it in target/guests")
        module = self.file.read_bytes()
        if module.count(GREETING) != 1:
            raise Failure(f"{self.file.name} does not say {GREETING.decode()} exactly once")
        return module


def drops_ms(address, path, file, versions):
    """For each (module, body) the time until a client that polls without pause sees the body."""
    times = []
    with instruments.connect(address) as client:
        for number, (module, body) in enumerate(versions):
            placed_s = place(file, module, in_place=number % 2 == 1)
            while True:
                status, seen = instruments.exchange(client, path)
                waited_s = time.perf_counter() - placed_s
                if status != 200:
                    raise Failure(f"{path} answers {status} while it is replaced")
                if seen == body:
                    break
                if waited_s > SEEN_WITHIN_S:
                    how = "in place" if number % 2 == 1 else "by rename"
                    raise Failure(f"{path}, written {how}, is not seen in {SEEN_WITHIN_S} s")
            times.append(waited_s * 1000)
    return times


# Whether every answer is of one version.


def swap_body(version):
    """About 1 KiB that says only which version it is, each with a length of its own."""
    return b"%05d " % version * (170 + version)


def swap_guest(version):
    """WebAssembly text: names its version in a header, and writes the body in two pieces."""
    body = swap_body(version)
    half = len(body) // 2
    return f"""(module
  (import "http_handler" "set_header_value" (func $set (param i32 i32 i32 i32 i32)))
  (import "http_handler" "write_body" (func $write (param i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "x-version")
  (data (i32.const 16) "{body.decode()}")
  (func (export "handle_request") (result i64)
    (call $set (i32.const 1) (i32.const 0) (i32.const 9) (i32.const 16) (i32.const 5))
    (call $write (i32.const 1) (i32.const 16) (i32.const {half}))
    (call $write (i32.const 1) (i32.const {16 + half}) (i32.const {len(body) - half}))
    (i64.const 0)))
""".encode("ascii")


class Swapper:
    """Replaces one guest over and over, while 50 connections ask for it and check each answer."""

    def __init__(self, address, path, file):
        self.address = address
        self.path = path
        self.file = file
        self.swaps = 0
        self.counts = collections.Counter()
        self.awaited = None
        self.seen = threading.Event()
        self.stop = threading.Event()

    def swap(self, count):
        """Replaces the guest so often, the next time as soon as one client has seen the last.

        Returns for each how long that took, in milliseconds.
        """
        seen_ms = []
        self.stop.clear()
        watcher = threading.Thread(target=self.watch)
        watcher.start()
        try:
            for _ in range(count):
                self.swaps += 1
                version = self.swaps % VERSIONS
                self.seen.clear()
                self.awaited = version
                in_place = self.swaps % 2 == 1
                placed_s = place(self.file, swap_guest(version), in_place)
                if not self.seen.wait(SEEN_WITHIN_S):
                    how = "in place" if in_place else "by rename"
                    raise Failure(f"swap {self.swaps}, {how}, is not seen in {SEEN_WITHIN_S} s")
                seen_ms.append((time.perf_counter() - placed_s) * 1000)
        finally:
            self.stop.set()
            watcher.join()
        return seen_ms

    def watch(self):
        """Keeps every connection busy until `stop`, and counts what comes back."""
        callers, last = set(), {}
        with contextlib.ExitStack() as opened:
            opened.callback(lambda: [caller.close() for caller in callers])
            while not self.stop.is_set():
                try:
                    while len(callers) < CONNECTIONS:
                        caller = Caller(self.address)
                        callers.add(caller)
                        caller.ask(self.path)
                except OSError as error:
                    self.count_failure(str(error))
                    time.sleep(0.01)
                for caller in select.select(callers, [], [], 0.1)[0]:
                    try:
                        if answer := caller.take():
                            last[caller] = self.check(answer, last.get(caller, 0))
                            caller.ask(self.path)
                    except (OSError, Failure) as error:
                        self.drop(caller, callers, str(error))
                now_s = time.perf_counter()
                for caller in [it for it in callers if now_s > it.due_s + ANSWERED_WITHIN_S]:
                    self.drop(caller, callers, "no answer")

    def check(self, answer, before):
        """Counts one answer and gives its swap; `before` is the last one's on its connection."""
        status, head, body = answer
        self.counts["answers"] += 1
        if status != 200:
            self.count_failure(f"status {status}")
            return before
        version = int(body[:5]) if body[:5].isdigit() else None
        named = b"\r\nx-version: %05d" % version if version is not None else b""
        if version not in range(VERSIONS) or body != swap_body(version) or named not in head:
            self.counts["mixed"] += 1
            return before
        if version == self.awaited:
            self.seen.set()
        # The last swap that put this version there; read once, since the other thread goes on.
        newest = self.swaps
        swap = newest - (newest - version) % VERSIONS
        self.counts["went_back"] += swap < before
        return swap

    def drop(self, caller, callers, why):
        self.count_failure(why)
        caller.close()
        callers.discard(caller)

    def count_failure(self, why):
        self.counts["failed"] += 1
        self.counts[f"failed: {why}"] += 1
