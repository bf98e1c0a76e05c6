#!/usr/bin/env python3
"""Slow clients: requests whose heads hardly come, and answers that are hardly read.

    python3 benches/slow.py PORT --path /big --heads 200 --reads 200

Runs until it is ended. Each client does something about once a second, at a time of its own: it
sends a byte of its head, or reads 16 bytes of its answer. One that the server closes begins anew.
"""

import argparse
import collections
import contextlib
import os
import random
import socket
import time

STEP_S = 1.0
READ_BYTES = 16
CONNECTED_WITHIN_S = 10
# Little room for what was sent and not read, so that the server has to keep it.
RECEIVE_BUFFER_BYTES = 4096
CLOSED = OSError


class SlowHead:
    """Sends a request's head a byte at a time."""

    def __init__(self, address, path):
        self.address = address
        self.head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".encode("ascii")
        self.client = None
        self.sent = 0

    def open(self):
        self.client = socket.create_connection(self.address, CONNECTED_WITHIN_S)
        self.client.setblocking(False)
        self.sent = 0

    def step(self):
        """Raises CLOSED when the server has closed."""
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
        self.client.settimeout(CONNECTED_WITHIN_S)
        self.client.connect(self.address)
        self.client.sendall(self.request)
        self.client.setblocking(False)

    def step(self):
        """Raises CLOSED when the server has closed."""
        with contextlib.suppress(BlockingIOError):
            if not self.client.recv(READ_BYTES):
                raise ConnectionResetError


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--path", default="/", help="of the large answer")
    parser.add_argument("--heads", type=int, default=200, help="clients that send slowly")
    parser.add_argument("--reads", type=int, default=200, help="clients that read slowly")
    parser.add_argument("--cpu", type=int, help="the one CPU that it may use; default: all")
    args = parser.parse_args()
    if args.cpu is not None:
        # A machine may not have it.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {args.cpu})
    # It takes the time that the server leaves; clients elsewhere would take none of it.
    os.nice(10)
    address = ("127.0.0.1", args.port)
    clients = [SlowHead(address, args.path) for _ in range(args.heads)]
    clients += [SlowRead(address, args.path) for _ in range(args.reads)]
    for client in clients:
        client.open()
    chance = random.Random(len(clients))
    now_s = time.monotonic()
    first_s = sorted(now_s + chance.random() * STEP_S for _ in clients)
    # All wait for the same time, so who has just had a step is last.
    steps = collections.deque(zip(first_s, chance.sample(clients, len(clients)), strict=True))
    while steps:
        due_s, client = steps.popleft()
        time.sleep(max(due_s - time.monotonic(), 0))
        steps.append((due_s + STEP_S, client))
        try:
            client.step()
        except CLOSED:
            client.client.close()
            with contextlib.suppress(CLOSED):
                client.open()


if __name__ == "__main__":
    main()
