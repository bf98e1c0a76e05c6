"""The slow clients of fairness.py: requests that hardly come, answers that are hardly read.

Owns their sockets, and a process of its own, which does next to nothing. Knows no figure and starts
no server.
"""

import collections
import contextlib
import multiprocessing
import os
import random
import select
import socket
import time

from instruments import ANSWERED_WITHIN_S, Failure

# Each client does something about once a second, each at a time of its own.
STEP_S = 1.0
READ_BYTES = 16
# Little room for what was sent and not read, so that the server has to keep it.
RECEIVE_BUFFER_BYTES = 4096
CLOSED = (ConnectionError, TimeoutError)


class SlowHeader:
    """Sends a request head a byte at a time, and begins anew when the server closes."""

    def __init__(self, address, path):
        self.address = address
        self.head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".encode("ascii")
        self.client = None
        self.sent = 0

    def open(self):
        self.client = socket.create_connection(self.address, ANSWERED_WITHIN_S)
        self.client.setblocking(False)
        self.sent = 0

    def step(self):
        """Raises one of CLOSED when the server has closed."""
        with contextlib.suppress(BlockingIOError):
            if not self.client.recv(READ_BYTES):
                raise ConnectionResetError
        # The last field has no end.
        byte = self.head[self.sent : self.sent + 1] or b"a"
        with contextlib.suppress(BlockingIOError):
            self.sent += self.client.send(byte)


class SlowRead:
    """Asks for a large answer, and reads a few bytes of it at a time."""

    def __init__(self, address, path):
        self.address = address
        self.request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("ascii")
        self.client = None

    def open(self):
        self.client = socket.socket()
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self.client.settimeout(ANSWERED_WITHIN_S)
        self.client.connect(self.address)
        self.client.sendall(self.request)
        self.client.setblocking(False)

    def step(self):
        """Raises one of CLOSED when the server has closed."""
        with contextlib.suppress(BlockingIOError):
            if not self.client.recv(READ_BYTES):
                raise ConnectionResetError


class SlowCrowd:
    """So many clients of each kind, in a process of their own, within a `with`."""

    def __init__(self, address, slow_headers, slow_reads, read_path):
        kinds = [SlowHeader(address, "/hello") for _ in range(slow_headers)]
        kinds += [SlowRead(address, read_path) for _ in range(slow_reads)]
        self.count = len(kinds)
        self.ours, theirs = multiprocessing.Pipe()
        # Not "spawn", which would run the main script again.
        fork = multiprocessing.get_context("fork")
        self.process = fork.Process(target=dawdle, args=(kinds, theirs, self.ours), daemon=True)

    def __enter__(self):
        """Returns when all of them are connected."""
        self.process.start()
        try:
            self.hear("connect")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()

    def stop(self):
        """How often each thing has happened; how many are connected."""
        self.ours.send("stop")
        return self.hear("stop")

    def hear(self, what):
        if not self.ours.poll(2 * ANSWERED_WITHIN_S):
            raise Failure(f"the slow clients do not {what}")
        try:
            return self.ours.recv()
        except EOFError:
            raise Failure(f"the slow clients do not {what}") from None


def dawdle(clients, told, others_end):
    """Lets each client take its step once a second, until it is told to stop."""
    # So that the end of the other process is noticed.
    others_end.close()
    os.nice(10)
    chance = random.Random(len(clients))
    for client in clients:
        client.open()
    told.send("connected")
    done = collections.Counter()
    now_s = time.perf_counter()
    first_s = sorted(now_s + chance.random() * STEP_S for _ in clients)
    # All wait for the same time, so who has just had a step is last.
    steps = collections.deque(zip(first_s, chance.sample(clients, len(clients)), strict=True))
    while not select.select([told], [], [], max(steps[0][0] - time.perf_counter(), 0))[0]:
        due_s, client = steps.popleft()
        steps.append((due_s + STEP_S, client))
        kind = type(client).__name__
        try:
            client.step()
            done[f"{kind} steps"] += 1
        except CLOSED:
            done[f"{kind} closed"] += 1
            client.client.close()
            client.open()
    told.send(dict(done))
