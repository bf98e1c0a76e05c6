"""The crowds of strangers.py and fairness.py: good callers at a fixed rate, and hostile ones.

Owns the sockets of both. Latency counts from the moment when a request was due, not from when it
could be sent, so that a server that stalls cannot hide it. Knows no figure and starts no server.
"""

import collections
import contextlib
import dataclasses
import gc
import itertools
import multiprocessing
import os
import random
import re
import select
import statistics
import threading
import time

import instruments
from instruments import ANSWERED_WITHIN_S, Failure

GOOD_CONNECTIONS = 50
ZIPF_SEED = 42
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Caller:
    """One kept-alive connection with one request at a time, which does not wait for the answer."""

    def __init__(self, address):
        self.client = instruments.connect(address)
        self.path = None
        self.due_s = None
        self.received = b""

    def fileno(self):
        return self.client.fileno()

    def ask(self, path, due_s=None):
        self.path = path
        self.due_s = due_s or time.perf_counter()
        self.received = b""
        self.client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("ascii"))

    def take(self):
        """(status, head, body) once it is whole; call it when there is something to read."""
        self.received += instruments.receive(self.client)
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return None
        length = LENGTH.search(head)
        if not length:
            raise Failure(f"{self.path} answers without Content-Length")
        if len(body) < int(length[1]):
            return None
        return int(head[9:12]), head, body

    def close(self):
        self.client.close()


# Each once.


@dataclasses.dataclass
class AskedOnce:
    """What went wrong, and how often; and the longest time that an answer took."""

    wrong: collections.Counter
    longest_s: float


def ask_each(address, answers, connections):
    """Asks for each path of `answers` once, on so many connections at a time.

    They are bodies by path, or None where it does not matter what comes.
    """
    paths, asked = collections.deque(answers), AskedOnce(collections.Counter(), 0)
    threads = [
        threading.Thread(target=ask_in_turn, args=(address, paths, answers, asked))
        for _ in range(connections)
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        # What is left after an interruption is not asked for.
        paths.clear()
    return asked


def ask_in_turn(address, paths, answers, asked):
    """One connection, which takes the next path as soon as it has its answer."""
    client = None
    while paths:
        with contextlib.suppress(IndexError):
            path = paths.popleft()
            start_s, wrong = time.perf_counter(), ""
            try:
                client = client or instruments.connect(address)
                status, body = instruments.exchange(client, path)
                if (status, body) != (200, answers[path]):
                    wrong = "wrong body" if status == 200 else f"status {status}"
            except (OSError, Failure) as error:
                wrong = str(error)
                if client:
                    client.close()
                client = None
            if answers[path] is not None:
                asked.wrong.update([wrong] if wrong else [])
                asked.longest_s = max(asked.longest_s, time.perf_counter() - start_s)
            elif client:
                # A hostile guest may have spoilt it.
                client.close()
                client = None
    if client:
        client.close()


# The good.


class GoodCrowd:
    """Asks `answers` (bodies by path) by Zipf's law, `rate` times a second, on 50 connections."""

    def __init__(self, address, answers, rate):
        self.address = address
        self.answers = answers
        self.rate = rate
        self.latencies_ms = []
        # How late this client itself noticed that a request was due.
        self.late_ms = []
        self.lost = collections.Counter()
        self.free = collections.deque()
        self.busy = {}

    def run(self, seconds):
        """Returns when every request is answered or lost, soon after the last one was due."""
        paths = zipf(self.answers, self.rate * seconds)
        due = collections.deque()
        number = 0
        with ahead_of_others(), contextlib.ExitStack() as opened:
            opened.callback(self.close)
            self.free.extend(Caller(self.address) for _ in range(GOOD_CONNECTIONS))
            start_s = time.perf_counter()
            while number < len(paths) or due or self.busy:
                now_s = time.perf_counter()
                while number < len(paths) and (due_s := start_s + number / self.rate) <= now_s:
                    self.late_ms.append((now_s - due_s) * 1000)
                    due.append((due_s, paths[number]))
                    number += 1
                while due and self.free:
                    self.send(*due.popleft())
                next_s = start_s + number / self.rate if number < len(paths) else now_s + 1
                wait_s = min(max(next_s - time.perf_counter(), 0), 1)
                for caller in select.select(list(self.busy.values()), [], [], wait_s)[0]:
                    self.receive(caller)
                self.give_up_late_ones()
                if now_s > start_s + len(paths) / self.rate + 2 * ANSWERED_WITHIN_S:
                    self.lost["not answered at the end"] += len(due) + len(self.busy)
                    return

    def send(self, due_s, path):
        caller = self.free.popleft()
        self.busy[id(caller)] = caller
        try:
            caller.ask(path, due_s)
        except OSError as error:
            self.lose(caller, str(error))

    def receive(self, caller):
        try:
            answer = caller.take()
        except (OSError, Failure) as error:
            self.lose(caller, str(error))
            return
        if not answer:
            return
        status, _, body = answer
        if status != 200:
            self.lost[f"status {status}"] += 1
        elif body != self.answers[caller.path]:
            self.lost["wrong body"] += 1
        else:
            self.latencies_ms.append((time.perf_counter() - caller.due_s) * 1000)
        del self.busy[id(caller)]
        self.free.append(caller)

    def give_up_late_ones(self):
        now_s = time.perf_counter()
        late = [it for it in self.busy.values() if now_s > it.due_s + ANSWERED_WITHIN_S]
        for caller in late:
            self.lose(caller, f"no answer within {ANSWERED_WITHIN_S} s")

    def lose(self, caller, why):
        self.lost[why] += 1
        del self.busy[id(caller)]
        caller.close()
        self.free.append(Caller(self.address))

    def close(self):
        for caller in (*self.free, *self.busy.values()):
            caller.close()

    def summary(self):
        if len(self.latencies_ms) < 100:
            raise Failure(f"{len(self.latencies_ms)} good requests are answered: no percentile")
        percent = statistics.quantiles(self.latencies_ms, n=1000)
        return {
            "p50_ms": percent[499],
            "p99_ms": percent[989],
            "p999_ms": percent[998],
            "max_ms": max(self.latencies_ms),
            "client_late_p99_ms": statistics.quantiles(self.late_ms, n=100)[98],
            "good": len(self.latencies_ms),
            "lost": self.lost.total(),
        }


def zipf(paths, count):
    """`count` of the paths by Zipf's law with s = 1; which has which rank is shuffled."""
    chance = random.Random(ZIPF_SEED)
    ranked = chance.sample(sorted(paths), len(paths))
    weights = [1 / rank for rank in range(1, len(ranked) + 1)]
    return chance.choices(ranked, weights, k=count)


@contextlib.contextmanager
def ahead_of_others():
    """Lets this thread run as soon as it can, where the user may: a client elsewhere would.

    Otherwise it waits its turn behind a busy server on the same cores, and so does its clock.
    """
    fifo = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    gc.disable()
    try:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, fifo, os.sched_param(1))
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        gc.enable()


# The hostile.


class HostileCrowd:
    """Calls hostile guests without pause from a process of its own, within a `with`.

    Some callers leave before the server's limits end the guest, and come back on a new connection.
    """

    PATIENCE_S = (0.05, 0.25, 1.5)
    CALLERS = 8

    def __init__(self, address, paths):
        self.ours, theirs = multiprocessing.Pipe()
        arguments = (address, paths, self.CALLERS, self.PATIENCE_S, theirs, self.ours)
        # Not "spawn", which would run the main script again.
        fork = multiprocessing.get_context("fork")
        self.process = fork.Process(target=pester, args=arguments, daemon=True)

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()

    def stop(self):
        """What became of the calls, counted."""
        self.ours.send("stop")
        if not self.ours.poll(2 * max(self.PATIENCE_S) + ANSWERED_WITHIN_S):
            raise Failure("the callers of hostile guests do not stop")
        return self.ours.recv()


def pester(address, paths, callers, patience_s, told, others_end):
    # So that the end of the other process is noticed.
    others_end.close()
    # It takes the time that the server leaves; a client elsewhere would take none of it.
    os.nice(10)
    stop = threading.Event()
    outcomes = [collections.Counter() for _ in range(callers)]

    def call_all(number):
        chance = random.Random(number)
        caller = None
        for index in itertools.count(number * len(paths) // callers):
            if stop.is_set():
                break
            path = paths[index % len(paths)]
            outcome, caller = call(caller, address, path, chance.choice(patience_s))
            outcomes[number][outcome] += 1
        if caller:
            caller.close()

    threads = [threading.Thread(target=call_all, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        told.recv()
    stop.set()
    for thread in threads:
        thread.join()
    told.send(sum(outcomes, collections.Counter()))


def call(caller, address, path, patience_s):
    """One call: its status, or how it ended without one; and the connection, if it still stands."""
    end_s = time.perf_counter() + patience_s
    try:
        caller = caller or Caller(address)
        caller.ask(path)
        while (left_s := end_s - time.perf_counter()) > 0:
            caller.client.settimeout(left_s)
            if answer := caller.take():
                status, head, _ = answer
                if b"\r\nconnection: close" not in head.lower():
                    return str(status), caller
                caller.close()
                return str(status), None
        outcome = "left"
    except TimeoutError:
        outcome = "left"
    except (OSError, Failure) as error:
        time.sleep(0.01)
        outcome = type(error).__name__
    if caller:
        caller.close()
    return outcome, None
