"""`/single/hello` beside an owner with a hundred busy handlers, to alone: p50, p99, and failures.

    python3 benches/owners.py [--bin target/release/guesthouse] [--seconds 5] [--rounds 7]

A host with two workers serves the folders `many`, with a hundred handlers, and `single`, with one.
Rounds alone and beside the others take turns. A hundred callers, in a process of their own, ask the
hundred handlers, one each, as fast as they can: for calls of 0.1 ms, of 20 ms, or that never end
(which `--cpu-max 1s` stops). `/single/hello` is asked for 250 times a second on one connection.
Prints a line for each round, and the medians of the ratios.
"""

import argparse
import multiprocessing
import pathlib
import statistics
import time

import beside

HANDLERS, WORKERS = 100, 2
KINDS = {"short": beside.spin(300_000), "long": beside.spin(60_000_000), "endless": "(loop $l (br $l))"}


class Server(beside.Server):
    """A running host with the hundred handlers beside the single one."""

    def write(self, handlers, name, text):
        for folder in ("single", "many"):
            (handlers / folder).mkdir()
        (handlers / "single/hello.wat").write_text(beside.guest("", 1, ""))
        for at in range(HANDLERS):
            (handlers / f"many/{at}.wat").write_text(text)


def call(port, until, told):
    """In a process of its own: tells how many calls there were."""
    callers = [beside.Caller(port, [f"/many/{at}"], until) for at in range(HANDLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    told.send(sum(it.calls for it in callers))


def hello(connection, until):
    """Asks at a constant rate: the median and the 99th percentile in ms, and how many failed."""
    taken, failures, due = [], 0, time.monotonic()
    while due < until:
        time.sleep(max(0, due - time.monotonic()))
        # What was due while another answer was late has waited for it.
        failures += beside.ask(connection, "/single/hello") != 200
        taken.append(time.monotonic() - due)
        due += beside.HELLO_EVERY_S
    taken.sort()
    return *(taken[int(len(taken) * part)] * 1000 for part in (0.5, 0.99)), failures


def measure(args, name, body):
    """Rounds of one kind of calls; the medians of p50 and p99 to alone."""
    server = Server(args, name, beside.guest("", 1, body))
    try:
        connection = beside.connect(server.port)
        for path in ["/single/hello", *(f"/many/{at}" for at in range(HANDLERS) if name != "endless")]:
            while beside.ask(connection, path) == 503:
                time.sleep(0.05)
        server.wait_for(rf"handlers: ({HANDLERS + 1}) ready")
        ratios = []
        for round_ in range(args.rounds):
            alone = hello(connection, time.monotonic() + args.seconds)
            until = time.monotonic() + args.seconds
            results, told = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.get_context("fork").Process(target=call, args=(server.port, until, told))
            process.start()
            busy = hello(connection, until)
            calls = results.recv()
            process.join()
            ratios.append([one / other for one, other in zip(busy[:2], alone[:2])])
            print(
                f"{name:8} {round_}: alone p50 {alone[0]:.2f} p99 {alone[1]:.2f} ms, beside p50 {busy[0]:.2f} "
                f"p99 {busy[1]:.2f} ms, {alone[2] + busy[2]} failed, {calls} calls of the others",
                flush=True,
            )
        return [statistics.median(column) for column in zip(*ratios)]
    finally:
        server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=str(pathlib.Path(beside.ROOT) / "target/release/guesthouse"))
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    args.workers = WORKERS
    for name, body in KINDS.items():
        p50, p99 = measure(args, name, body)
        print(f"{name:8} median of {args.rounds}: p50 to alone {p50:.2f}, p99 to alone {p99:.2f}", flush=True)


if __name__ == "__main__":
    main()
