#!/usr/bin/env python3
"""`guesthouse bench` beside wrk, as a second opinion: what each takes itself, and what it says.

    cargo build --release && python3 benches/wrk.py --out benches/runs/DATE-MACHINE/wrk

A native route of the demo on CPU 0, the generators in turn on CPU 1. Writes every number of every
round to raw.csv, in the columns of `guesthouse bench`, so that benches/figures.toml can name them.
"""

import argparse
import csv
import json
import os
import pathlib
import random
import re
import resource
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECONDS_PER = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
PIPELINE = pathlib.Path(__file__).with_name("pipeline.lua")
# By the name of the case: path, connections, flags of `guesthouse bench`, of wrk.
CASES = {
    "hello": ("/native/hello", 50, (), ()),
    "hello, pipelined": ("/native/hello", 100, ("--pipeline", "24"), ("-s", str(PIPELINE))),
    # A request takes the server 30 us, and a generator a tenth of that: whichever it is, it waits.
    "fib/20": ("/native/fib/20", 50, (), ()),
}


def pinned(cpu, command, **options):
    return subprocess.run(
        ["taskset", "--cpu-list", cpu, *command], capture_output=True, text=True, check=True, **options
    )


def children_cpu_s():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def wrk(url, seconds, connections, flags):
    before_s = children_cpu_s()
    out = pinned("1", ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *flags, url]).stdout
    cpu_s = children_cpu_s() - before_s
    requests = int(re.search(r"(\d+) requests in ", out)[1])
    p50 = re.search(r"50% *([0-9.]+)(us|ms|s)\b", out)
    failed = sum(map(int, re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", out)))
    return {
        "client_cpu_us_per_req": cpu_s * 1e6 / requests,
        "req_per_s": float(re.search(r"Requests/sec: *([0-9.]+)", out)[1]),
        "p50_us": float(p50[1]) * SECONDS_PER[p50[2]] * 1e6,
        "errors_wrk": failed,
    }


def bench(program, url, seconds, connections, flags):
    with tempfile.TemporaryDirectory() as scratch:
        file = f"{scratch}/run.json"
        length = ["--rounds", "1", "--duration", f"{seconds}s", "--connections", str(connections)]
        pinned("1", [program, "bench", *length, "--json", file, *flags, url])
        summary = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))["cases"][0]["targets"][0]["summary"]
    names = ("client_cpu_us_per_req", "req_per_s", "p50_us")
    return {name: summary[name] for name in names} | {"errors_bench": summary["errors"]["total"]}


def serve(program, log):
    command = [program, "demo", "--also", "none", "--listen", "127.0.0.1:0", "--workers", "1"]
    host = subprocess.Popen(["taskset", "--cpu-list", "0", *command], stderr=log.open("w"))
    for _ in range(600):
        found = re.search(r"listening on http://([^\s/]+)", log.read_text(encoding="utf-8"))
        if found or host.poll() is not None:
            break
        time.sleep(0.1)
    if not found:
        sys.exit(f"the host does not start: {log.read_text(encoding='utf-8')[-1000:]}")
    return host, f"http://{found[1]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(ROOT / "target/release/guesthouse"))
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a new folder for the run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch, open(args.out / "raw.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["case", "row", "round", "position", "quantity", "value"])
        host, origin = serve(args.program, pathlib.Path(scratch) / "log")
        try:
            for case, (path, connections, ours, theirs) in CASES.items():
                for number in range(1, args.rounds + 1):
                    order = random.sample(["bench", "wrk"], 2)
                    for position, row in enumerate(order, start=1):
                        load = (origin + path, args.seconds, connections)
                        reading = wrk(*load, theirs) if row == "wrk" else bench(args.program, *load, ours)
                        for quantity, value in reading.items():
                            rows.writerow([case, row, number, position, quantity, value])
                        print(case, number, row, reading, flush=True)
        finally:
            host.terminate()
            host.wait()
    about = [f"{os.uname().sysname} {os.uname().release}, {os.cpu_count()} CPUs"]
    about += [subprocess.run(["wrk", "--version"], capture_output=True, text=True).stdout.split("\n")[0]]
    about += [f"{args.rounds} rounds of {args.seconds} s"]
    (args.out / "summary.txt").write_text("\n".join(about) + "\n")


if __name__ == "__main__":
    main()
