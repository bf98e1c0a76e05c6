#!/usr/bin/env python3
"""Measures whether what one handler or client does hurts another, and writes a run to benches/runs.

Rounds, raw data and report are those of compare.py. Owns the command, the folder of guests and the
servers; neighbours.py says what is measured, README.md what it means.
"""

import argparse
import os
import pathlib
import platform
import random
import re
import shutil
import signal
import subprocess
import sys

import compare
import instruments
import neighbours
from compare import BENCHES, ROOT, Launch, say
from figures import CLIENT_CPU, SERVER_CPU
from instruments import Failure
from neighbours import ATTACK_CONNECTIONS, FIGURES
from report import ROUNDS_MIN

GUESTS = ROOT / "target" / "guests" / "wasm32-wasip1" / "release"
DEMO_GUESTS = ("hello", "fib", "echo")
FILES_OPEN = 4 * ATTACK_CONNECTIONS


# What it is measured on.


class Bench(compare.Bench):
    """The servers, all of which serve one folder."""

    def __init__(self, options, launches, missing, scratch):
        super().__init__(launches, missing, scratch)
        self.options = options


def make_folder(options, scratch):
    """The demo's guests that are asked, and those which hurt."""
    folder = pathlib.Path(scratch) / "guests"
    folder.mkdir()
    sources = [options.guests / f"{name}.wasm" for name in DEMO_GUESTS]
    for source in (*sources, *(BENCHES / "neighbours").glob("*.wat")):
        if not source.is_file():
            raise Failure(f"no guest {source.name}: cargo build --release")
        shutil.copyfile(source, folder / source.name)
    return folder


def find_servers(options, _figures, scratch):
    folder = make_folder(options, scratch)
    serve = [str(options.guesthouse), "serve", str(folder), "--listen", "127.0.0.1:0"]
    one, two = [*serve, "--workers", "1"], [*serve, "--workers", "2"]
    launches = {
        "guests": Launch(two, cpus=None),
        "attacked": Launch(two, cpus=None),
        "one worker": Launch(one),
        "lanes on": Launch(one),
        "lanes off": Launch([*one, "--slow-priority", "off"]),
        "balance kernel": Launch([*two, "--balance", "kernel"], cpus=None),
        "balance least": Launch([*two, "--balance", "least"], cpus=None),
    }
    missing = {} if shutil.which("slowhttptest") else {"attacked": "no slowhttptest"}
    return Bench(options, launches, missing, scratch)


# The command.


def parse():
    names = [figure.name for figure in FIGURES]
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--only", default=",".join(names), help=f"some of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS_MIN)
    parser.add_argument("--duration", type=int, default=10, help="seconds of one measurement")
    parser.add_argument("--overload-seconds", type=int, default=30)
    parser.add_argument("--contained-seconds", type=int, default=60)
    parser.add_argument("--attack-seconds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--name", default=f"{platform.machine()}-{os.cpu_count()}core-fairness")
    parser.add_argument("--out", type=pathlib.Path, default=BENCHES / "runs")
    release = ROOT / "target" / "release" / "guesthouse"
    parser.add_argument("--guesthouse", "--bin", type=pathlib.Path, default=release)
    parser.add_argument("--guests", type=pathlib.Path, default=GUESTS, help="the demo's guests")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(names):
        parser.error(f"--only: no figure {', '.join(sorted(unknown))}")
    if options.rounds < 1 or not 1 <= options.duration <= 50:
        parser.error("--rounds is at least 1, --duration from 1 to 50")
    lengths = options.overload_seconds, options.contained_seconds, options.attack_seconds
    if not all(1 <= seconds <= 3600 for seconds in lengths):
        parser.error("every time is from 1 to 3600 seconds")
    if not {int(SERVER_CPU), int(CLIENT_CPU)} <= os.sched_getaffinity(0):
        parser.error("the cores 0 and 1 must be free to use")
    for tool in ("wrk", "taskset"):
        if not shutil.which(tool):
            parser.error(f"{tool} is not installed")
    if not options.guesthouse.is_file():
        parser.error("no guesthouse binary: cargo build --release")
    options.guesthouse = options.guesthouse.resolve()
    return options, [figure for figure in FIGURES if figure.name in wanted]


def slowhttptest_version():
    """What its help begins with; it has no option for that."""
    if not shutil.which("slowhttptest"):
        return "none"
    shown = subprocess.run(["slowhttptest", "-h"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\S+)", shown.stdout + shown.stderr)
    return found[1] if found else "unknown"


def facts(options):
    """What the report of compare.py says otherwise, or does not say."""
    return {
        "Profile": "release",
        "Times": f"{options.overload_seconds} s of overload, {options.contained_seconds} s beside "
        f"hostile guests, {options.attack_seconds} s of each attack",
        "Flags": "defaults, with --workers 1 or 2",
        "slowhttptest": slowhttptest_version(),
        "Go": None,
    }


def main():
    options, figures = parse()
    # So that a SIGTERM stops the servers too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        instruments.raise_file_limit(FILES_OPEN)
    except Failure as reason:
        say(f"the figure slowhttptest may fail: {reason}")
    return compare.measure(options, figures, find_servers, lambda: facts(options))


if __name__ == "__main__":
    sys.exit(main())
