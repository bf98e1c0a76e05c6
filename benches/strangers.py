#!/usr/bin/env python3
"""Measures "ten thousand strangers": a folder of 10,000 handlers, 100 of them hostile.

Rounds, raw data and report are those of compare.py. Owns the command, the folders and the servers;
multitude.py says what is measured, README.md what it means.
"""

import argparse
import os
import pathlib
import platform
import random
import resource
import shutil
import signal
import sys

import compare
import crowd
import swapper
from compare import ROOT, Launch, say
from instruments import Failure, Server
from multitude import FIGURES, HOSTILE_FLAGS, settle
from report import ROUNDS_MIN

STARTED_WITHIN_S = 120
# Loads that many at once; what is cold is compiled on all cores meanwhile.
LOADING_CONNECTIONS = 8
HELLO = ROOT / "target" / "guests" / "wasm32-wasip1" / "release" / "hello.wasm"
LOADED_KIB_FIRST = 32 << 10
# The others have clients of their own.
WITH_WRK = {"zipf", "zipf-go", "memory"}


# What it is measured on.


class Bench(compare.Bench):
    """The servers and their folders, and what every good guest answers."""

    def __init__(self, options, folders, launches, missing, scratch):
        super().__init__(launches, missing, scratch)
        self.options = options
        self.folders = folders
        self.good = routes(folders["many"], "stranger")
        self.hostile = routes(folders["many"], "hostile")
        self.answers = answers(folders["many"])
        self.filled = False
        self.turns = random.Random(options.seed).sample(self.good, len(self.good))
        self.hello = swapper.Hello(options.hello)
        self.compiled = []
        self.loaded_kib = LOADED_KIB_FIRST

    def launch(self, name, cache=None, flags=()):
        plain = super().launch(name, cache)
        return Server([*plain.command, *flags], plain.log, plain.env, None, STARTED_WITHIN_S)

    def next_good(self):
        """Another good guest each time, since none stands for all."""
        self.turns.append(self.turns.pop(0))
        return self.turns[-1]

    def aim_zipf_at(self, paths):
        """What zipf.lua asks for from now on; wrk inherits the environment."""
        listed = self.empty_folder() / "paths.txt"
        listed.write_text("\n".join(paths), encoding="ascii")
        os.environ["ZIPF_PATHS"] = str(listed)

    def fill_cache(self):
        """Once: so that no later server compiles anything but what it is given anew."""
        if not self.filled:
            with self.launch("many") as server:
                say(f"all guests have been asked: {self.load_all(server)}")
            self.filled = True

    def load_all(self, server):
        """Asks every good guest, and waits until nothing is left to load."""
        if wrong := crowd.ask_each(server.address, self.answers, LOADING_CONNECTIONS).wrong:
            raise Failure(f"not all good guests answer right: {dict(wrong)}")
        return settle(server)


def routes(folder, kind):
    files = (folder / kind).iterdir()
    return sorted(f"/{kind}/{file.stem}" for file in files if file.suffix in (".wasm", ".wat"))


def answers(folder):
    """What each good guest answers, by path: its file says it."""
    files = (folder / "stranger").glob("*.wasm")
    return {f"/stranger/{file.stem}": answer(file) for file in sorted(files)}


def answer(file):
    """The contents of the custom section `answer` (WebAssembly core specification, 5.5.3)."""
    wasm = file.read_bytes()
    at = 8
    while at < len(wasm):
        kind, (size, start) = wasm[at], number(wasm, at + 1)
        at = start + size
        if kind == 0:
            length, named = number(wasm, start)
            if wasm[named : named + length] == b"answer":
                return wasm[named + length : at]
    raise Failure(f"{file.name} does not say what it answers: it is of an older version")


def number(wasm, at):
    """An unsigned number in LEB128, and where it ends."""
    value = shift = 0
    while True:
        value |= (wasm[at] & 0x7F) << shift
        if wasm[at] < 0x80:
            return value, at + 1
        at, shift = at + 1, shift + 7


def make_strangers(options, scratch):
    """The folder of all guests, which guesthouse itself writes unless it is there."""
    folder = (options.strangers or pathlib.Path(scratch) / "strangers").resolve()
    if not (folder / "stranger").is_dir():
        say(f"{options.many} guests are written")
        demo = [str(options.bin), "demo", "--many", str(options.many), "--many-dir", str(folder)]
        command = [*demo, "--no-cache", "--listen", "127.0.0.1:0"]
        log = pathlib.Path(scratch) / "demo.log"
        with Server(command, log, os.environ, None, STARTED_WITHIN_S) as server:
            # All of them are written before it listens.
            server.check_alive()
    found = len(routes(folder, "stranger")) + len(routes(folder, "hostile"))
    if found != options.many:
        raise Failure(f"the folder of strangers has {found} guests, and not {options.many}")
    return folder


def make_folders(options, scratch):
    """The folders by the name of the server that serves them."""
    many = make_strangers(options, scratch)
    drop_many = pathlib.Path(scratch) / "drop-many"
    # Links, since only one file in it will be another than in `many`.
    shutil.copytree(many, drop_many, copy_function=link_or_copy)
    drop_one, swap = pathlib.Path(scratch) / "drop-one", pathlib.Path(scratch) / "swap"
    drop_one.mkdir()
    swap.mkdir()
    folders = {"many": many, "hostile": many}
    return folders | {"drop one": drop_one, "drop many": drop_many, "swap": swap}


def link_or_copy(source, target):
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def find_servers(options, figures, scratch):
    """Makes the folders and builds the peer."""
    folders = make_folders(options, scratch)
    launches, missing = {}, {}
    for name, folder in folders.items():
        serve = [str(options.bin), "serve", str(folder), "--listen", "127.0.0.1:0"]
        flags = HOSTILE_FLAGS if name == "hostile" else ()
        launches[name] = Launch([*serve, "--workers", "2", *flags], cpus=None)
    if any(case.server == "go" for figure in figures for case in figure.cases):
        try:
            go = [str(compare.build_go(scratch)), "127.0.0.1:0"]
            launches["go"] = Launch(go, cpus=None, env={"GOMAXPROCS": "2"})
        except Failure as reason:
            missing["go"] = str(reason)
    return Bench(options, folders, launches, missing, scratch)


# The command.


def parse():
    names = [figure.name for figure in FIGURES]
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--only", default=",".join(names), help=f"some of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS_MIN)
    parser.add_argument("--duration", type=int, default=5, help="seconds of wrk at a time")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--name", default=f"{platform.machine()}-{os.cpu_count()}core-strangers")
    parser.add_argument("--out", type=pathlib.Path, default=compare.BENCHES / "runs")
    release = ROOT / "target" / "release" / "guesthouse"
    parser.add_argument("--bin", "--guesthouse", type=pathlib.Path, default=release)
    parser.add_argument("--many", type=int, default=10_000, help="guests in all")
    written = "what `guesthouse demo --many` wrote, or where it is to; default: anew each time"
    parser.add_argument("--strangers", type=pathlib.Path, metavar="DIR", help=written)
    parser.add_argument("--hello", type=pathlib.Path, default=HELLO, help="the demo's hello.wasm")
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--hostile-seconds", type=int, default=60)
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(names):
        parser.error(f"--only: no figure {', '.join(sorted(unknown))}")
    if options.rounds < 1 or not 1 <= options.duration <= 50:
        parser.error("--rounds is at least 1, --duration from 1 to 50")
    if options.many < 200 or options.swaps < 1 or not 1 <= options.hostile_seconds <= 3600:
        parser.error("--many is at least 200, --swaps 1, --hostile-seconds from 1 to 3600")
    if set(wanted) & WITH_WRK and not shutil.which("wrk"):
        parser.error("wrk is not installed")
    if not options.bin.is_file():
        parser.error("no guesthouse binary: cargo build --release")
    options.bin = options.guesthouse = options.bin.resolve()
    return options, [figure for figure in FIGURES if figure.name in wanted]


def facts(options):
    """What the report of compare.py says otherwise, or does not say."""
    mappings = pathlib.Path("/proc/sys/vm/max_map_count").read_text(encoding="ascii").strip()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return {
        "Profile": "release",
        "Guests": f"{options.many}; {options.swaps} swaps, {options.hostile_seconds} s hostile",
        "Flags": f"--workers 2; for `hostile` also {' '.join(HOSTILE_FLAGS)}",
        "Limits": f"{mappings} mappings, {files} open files",
    }


def main():
    options, figures = parse()
    # So that a SIGTERM stops the servers too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return compare.measure(options, figures, find_servers, lambda: facts(options))


if __name__ == "__main__":
    sys.exit(main())
