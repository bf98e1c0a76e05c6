#!/usr/bin/env python3
"""Measures what the project claims about its speed, and writes a run to benches/runs.

Absolute times mean nothing on a shared machine, so a figure compares two or more cases that take
turns: every round measures each case once, in shuffled order, and gives one ratio; the figure is
the median of the rounds. Owns the servers and the rounds; figures.py says what is compared,
instruments.py obtains a number, report.py writes it down, README.md says what it means.
"""

import argparse
import contextlib
import csv
import dataclasses
import datetime
import functools
import json
import os
import pathlib
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile

import instruments
import report
from figures import CLIENT_CPU, FIGURES, IDLE_CONNECTIONS, SERVER_CPU
from instruments import Failure, Server
from report import ROUNDS_MIN, Result

BENCHES = pathlib.Path(__file__).resolve().parent
ROOT = BENCHES.parent
PYTHON = ROOT / "guests" / "dist" / "python"
COMPONENTS = [ROOT / "target" / "guests" / f"wasi0{version}-hello.wasm" for version in (2, 3)]


# What it is measured on.


@dataclasses.dataclass(frozen=True)
class Launch:
    command: list[str]
    cpus: str | None = SERVER_CPU
    env: dict[str, str] = dataclasses.field(default_factory=dict)


class Bench:
    """The servers by name, those that run now, and a scratch folder for logs and caches."""

    def __init__(self, launches, missing, scratch):
        self.launches = launches
        self.missing = missing
        self.scratch = scratch
        self.cache = self.empty_folder()
        self.running = {}

    def why_not(self, figure):
        reasons = {self.missing.get(case.server, "") for case in figure.cases} - {""}
        return "; ".join(sorted(reasons))

    @contextlib.contextmanager
    def session(self):
        """Within it `server` starts each server once; after it none of them runs."""
        try:
            yield
        finally:
            with contextlib.ExitStack() as stopped:
                for server in self.running.values():
                    stopped.callback(server.stop)
                self.running = {}

    def server(self, name):
        if name not in self.running:
            self.running[name] = self.launch(name).start()
        return self.running[name]

    def launch(self, name, cache=None):
        launch = self.launches[name]
        log = self.empty_folder() / f"{name}.log"
        env = os.environ | {"XDG_CACHE_HOME": str(cache or self.cache)} | launch.env
        return Server(launch.command, log, env, launch.cpus)

    def check(self, case):
        """One request before anything is timed: the right answer, and a cold guest loaded."""
        address = self.server(case.server).address
        status, body = instruments.get(address, case.path)
        if status != 200 or case.body not in (None, body):
            raise Failure(f"{case.server} {case.path}: status {status}, body {body[:40]!r}")

    def empty_folder(self):
        return pathlib.Path(tempfile.mkdtemp(dir=self.scratch))


def find_servers(options, figures, scratch):
    """Finds or builds the servers that the figures need."""
    launches, missing = {}, {}

    def add(names, find, launches_of):
        if not any(case.server in names for figure in figures for case in figure.cases):
            return
        try:
            launches.update(zip(names, launches_of(str(find())), strict=True))
        except Failure as reason:
            missing.update(dict.fromkeys(names, str(reason)))

    names = ("fresh", "reuse", "fresh x2", "demo")
    add(names, lambda: find_guesthouse(options.guesthouse), guesthouse_launches)
    names = ("python fresh", "python reuse")
    add(names, lambda: find_python(options.guesthouse), python_launches)
    for peer in ("granian", "uvicorn"):
        add((peer,), functools.partial(find_peer, peer), peer_launches)
    serves = ("serve fresh", "serve reuse", "serve03 fresh", "serve03 reuse")
    add(serves, find_wasmtime, serve_launches)
    add(("bare", "bare again"), lambda: find_bare_hyper(options.bare_hyper), bare_launches)
    add(("go",), lambda: build_go(scratch), go_launches)
    return Bench(launches, missing, scratch)


def guesthouse_launches(path):
    any_port = [path, "demo", "--also", "none", "--listen", "127.0.0.1:0"]
    fresh, reuse = ["--isolation", "fresh"], ["--isolation", "reuse"]
    return (
        Launch([*any_port, "--workers", "1", *fresh]),
        Launch([*any_port, "--workers", "1", *reuse]),
        Launch([*any_port, "--workers", "2", *fresh], cpus=None),
        Launch(any_port, cpus=None),
    )


def find_python(path):
    if not (PYTHON / "hello.wasm").is_file():
        raise Failure("no guests in Python (guests/python/build.sh)")
    return find_guesthouse(path)


def python_launches(path):
    command = [path, "serve", str(PYTHON), "--listen", "127.0.0.1:0", "--workers", "1"]
    command += ["--compile-max", "10m"]
    return (
        Launch([*command, "--isolation", "fresh"]),
        Launch([*command, "--isolation", "reuse"]),
    )


def find_peer(name):
    program = BENCHES / "peers" / "installed" / "bin" / name
    if not program.is_file():
        raise Failure(f"no {name} (benches/peers/install.sh {name})")
    return program


def peer_launches(path):
    return (Launch([sys.executable, str(BENCHES / "peers" / "announce.py"), path]),)


def find_wasmtime():
    """The one that peers/install.sh installs; the components are those of the last build."""
    wasmtime = BENCHES / "peers" / "installed" / "wasmtime" / "bin" / "wasmtime"
    if not wasmtime.is_file() or not all(map(pathlib.Path.is_file, COMPONENTS)):
        raise Failure("no wasmtime, or no component (benches/peers/install.sh wasmtime)")
    return wasmtime


def serve_launches(path):
    # As peers/install.sh sets it up: what makes it quickest on one core.
    pool = (
        "pooling-allocator=y,pooling-memory-keep-resident=4194304,"
        "pooling-table-keep-resident=65536,pooling-pagemap-scan=auto,"
        "pooling-max-unused-warm-slots=1000"
    )
    any_port = [path, "serve", "--addr", "127.0.0.1:0", "-S", "cli", "-O", pool]
    env = {"TOKIO_WORKER_THREADS": "1"}
    times = "--max-instance-reuse-count"
    return [
        Launch([*any_port, times, str(count), str(component)], env=env)
        for component in COMPONENTS
        for count in (1, 1000000000)
    ]


def bare_launches(path):
    launch = Launch([path, "--serve", "--workers", "1"])
    return launch, launch


def go_launches(path):
    return (Launch([path, "127.0.0.1:0"], env={"GOMAXPROCS": "1"}),)


def find_guesthouse(path):
    if not path.is_file():
        raise Failure("no guesthouse binary")
    return path.resolve()


def find_bare_hyper(path):
    if path:
        return path.resolve()
    command = ["cargo", "bench", "--bench", "bare_hyper", "--no-run", "--message-format=json"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=1800, check=False)
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("target", {}).get("name") == "bare_hyper" and message.get("executable"):
            return message["executable"]
    raise Failure("no bare_hyper")


def build_go(scratch):
    go = shutil.which("go")
    if not go:
        raise Failure("no go")
    binary = pathlib.Path(scratch) / "go-hello"
    command = [go, "build", "-buildvcs=false", "-o", str(binary), "."]
    env = os.environ | {"GOTOOLCHAIN": "local"}
    built = subprocess.run(command, cwd=BENCHES / "peers", env=env, timeout=600, check=False)
    if built.returncode != 0:
        raise Failure("go build failed")
    return binary


# The rounds.


def run_figure(figure, bench, options, shuffler, raw, result):
    """Fills `result` round by round, so that an interrupted run keeps what it has."""
    with bench.session():
        if figure.prepare:
            figure.prepare(bench, figure)
        for number in range(1, options.rounds + 1):
            order = shuffler.sample(figure.cases, len(figure.cases))
            values = {}
            for position, case in enumerate(order, start=1):
                reading = figure.measure(bench, case, options.duration)
                for quantity, value in reading.items():
                    exact = round(value, 4) if isinstance(value, float) else value
                    raw.writerow([figure.name, number, position, case.label, quantity, exact])
                values[case.label] = reading[figure.quantity]
                if reading["errors"] and not result.problem:
                    result.problem = f"round {number}, {case.label}: {reading['errors']}"
            result.values.append(figure.value(values))
            for case in figure.cases:
                result.cases.setdefault(case.label, []).append(values[case.label])
            value = figure.shown.format(result.values[-1])
            say(f"{figure.name} {number}/{options.rounds}: {value}")


def run(options, figures, folder, find=None):
    """Every figure in turn: the results, and whether the run came to its end. `find` makes the
    servers."""
    results = []
    shuffler = random.Random(options.seed)
    with (
        tempfile.TemporaryDirectory(prefix="guesthouse-compare-") as scratch,
        open(folder / "raw.csv", "w", newline="", encoding="utf-8", buffering=1) as table,
    ):
        raw = csv.writer(table, lineterminator="\n")
        raw.writerow(["figure", "round", "position", "case", "quantity", "value"])
        try:
            bench = (find or find_servers)(options, figures, scratch)
            for figure in figures:
                result = Result(figure, skipped=bench.why_not(figure))
                results.append(result)
                if result.skipped:
                    continue
                try:
                    run_figure(figure, bench, options, shuffler, raw, result)
                except (Failure, OSError) as error:
                    result.problem = str(error).replace(f"{ROOT}/", "")
                    say(f"{figure.name}: {error}")
        except KeyboardInterrupt:
            if results and len(results[-1].values) < options.rounds:
                results[-1].problem = "interrupted"
            return results, False
    return results, True


# The command.


def say(text):
    print(text, file=sys.stderr, flush=True)


def parse():
    names = [figure.name for figure in FIGURES]
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--only", default=",".join(names), help=f"some of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS_MIN)
    parser.add_argument("--duration", type=int, default=5, help="seconds of one measurement")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--name", default=f"{platform.machine()}-{os.cpu_count()}core")
    parser.add_argument("--out", type=pathlib.Path, default=BENCHES / "runs")
    parser.add_argument(
        "--guesthouse", type=pathlib.Path, default=ROOT / "target" / "release" / "guesthouse"
    )
    parser.add_argument("--bare-hyper", type=pathlib.Path, help="default: cargo builds it")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(names):
        parser.error(f"--only: no figure {', '.join(sorted(unknown))}")
    if options.rounds < 1 or not 1 <= options.duration <= 50:
        parser.error("--rounds is at least 1, --duration from 1 to 50")
    if not {int(SERVER_CPU), int(CLIENT_CPU)} <= os.sched_getaffinity(0):
        parser.error("the cores 0 and 1 must be free to use")
    for tool in ("wrk", "taskset"):
        if not shutil.which(tool):
            parser.error(f"{tool} is not installed")
    return options, [figure for figure in FIGURES if figure.name in wanted]


def new_folder(parent, name):
    """`<date>-<name>`, with a number behind it where there was such a run today."""
    first = parent / f"{datetime.date.today()}-{name}"
    folder, number = first, 1
    while folder.exists():
        number += 1
        folder = first.with_name(f"{first.name}-{number}")
    folder.mkdir(parents=True)
    return folder


def measure(options, figures, find=None, facts=None):
    """Takes the figures and reports them: the exit code. `facts` gives report.readme's changes."""
    load_before = report.load_average()
    folder = new_folder(options.out, options.name)
    say(f"seed {options.seed}, run {folder.name}")
    try:
        results, complete = run(options, figures, folder, find)
    except Failure as reason:
        say(f"nothing could be measured: {reason}")
        return 1
    changes = facts() if facts else None
    return conclude(options, results, complete, folder, load_before, changes)


def conclude(options, results, complete, folder, load_before, changes=None):
    """Writes the report, and prints its table: the exit code. `changes` are report.readme's."""
    table = report.summary(results, options)
    wanted = {result.figure.name: getattr(result.figure, "also", ()) for result in results}
    if also := report.details(folder / "raw.csv", wanted):
        table += "\n".join(["", "Also, of all rounds (lowest .. highest):", *also, ""])
    (folder / "summary.txt").write_text(table, encoding="utf-8")
    about = report.readme(options, complete, load_before, changes)
    (folder / "README.md").write_text(about, encoding="utf-8")
    print(table, end="")
    if not complete:
        return 130
    return 1 if any(result.verdict().startswith(("NO", "FAILED")) for result in results) else 0


def main():
    options, figures = parse()
    # So that a SIGTERM stops the servers too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        instruments.raise_file_limit(IDLE_CONNECTIONS + 1000)
    except Failure as reason:
        say(f"the figure idle will fail: {reason}")
    return measure(options, figures)


if __name__ == "__main__":
    sys.exit(main())
