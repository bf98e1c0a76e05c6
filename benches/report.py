"""The report of a run: its table, and what it was measured on.

Names nothing that belongs to the one machine it ran on, such as folders and host names.
"""

import csv
import dataclasses
import datetime
import os
import pathlib
import platform
import re
import shlex
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROUNDS_MIN = 5


@dataclasses.dataclass
class Result:
    """The rounds of a figure: its values, the values of its cases, and why there are none."""

    figure: object
    values: list[float] = dataclasses.field(default_factory=list)
    cases: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    problem: str = ""
    skipped: str = ""

    def verdict(self):
        if self.skipped:
            return f"skipped: {self.skipped}"
        if self.problem:
            return f"FAILED: {self.problem}"
        figure, value = self.figure, statistics.median(self.values)
        if figure.at_most is None and figure.at_least is None:
            return "-"
        is_low = figure.at_most is None or value <= figure.at_most
        is_high = figure.at_least is None or value >= figure.at_least
        return "yes" if is_low and is_high else "NO"

    def target(self):
        if self.figure.at_least is not None:
            return f">= {self.figure.at_least:g}"
        return "-" if self.figure.at_most is None else f"<= {self.figure.at_most:g}"

    def row(self):
        shown = self.figure.shown.format
        measured = shown(statistics.median(self.values)) if self.values else "-"
        spread = f"{shown(min(self.values))} .. {shown(max(self.values))}" if self.values else "-"
        return self.figure.title, self.target(), measured, spread, self.verdict()

    def medians(self):
        shown = self.figure.case_shown.format
        return ", ".join(f"{name} {shown(statistics.median(v))}" for name, v in self.cases.items())


def summary(results, options):
    rows = [("figure", "target", "measured", "spread", "pass"), *(r.row() for r in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [" | ".join([*map(str.ljust, row[:4], widths), row[4]]) for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    lines += ["", "Medians of the cases:"]
    lines += [f"  {r.figure.name}: {r.medians()}" for r in results if r.cases]
    lines += ["", f"{options.rounds} rounds of {options.duration} s, seed {options.seed}"]
    if options.rounds < ROUNDS_MIN:
        lines.append(f"A trial: a figure needs at least {ROUNDS_MIN} rounds.")
    return "\n".join(lines) + "\n"


def details(raw, wanted):
    """A line for each case that has quantities in raw.csv which `wanted` names by figure."""
    found = {}
    with open(raw, newline="", encoding="utf-8") as table:
        for row in csv.DictReader(table):
            if row["quantity"] in wanted.get(row["figure"], ()):
                case = found.setdefault(f"{row['figure']}, {row['case']}", {})
                case.setdefault(row["quantity"], []).append(float(row["value"]))
    return [
        f"  {case}: " + ", ".join(f"{name} {spread(values)}" for name, values in quantities.items())
        for case, quantities in found.items()
    ]


def spread(values):
    """The median, and the lowest and the highest if they differ."""
    numbers = statistics.median(values), min(values), max(values)
    median, least, most = map("{:.6g}".format, numbers)
    return median if least == most else f"{median} ({least} .. {most})"


def readme(options, complete, load_before, changes=None):
    """`changes` replaces facts of this list, or adds some; None takes one away."""
    facts = {
        "Machine": machine(),
        "Kernel": f"{platform.system()} {platform.release()}",
        "Load average of 1 minute": f"{load_before} before, {load_average()} after",
        "Commit": commit(),
        "Profile": "release for guesthouse, bench (the same settings) for bare hyper",
        "Command": f"`{command_line()}`",
        "Seed": str(options.seed),
        "Rounds": f"{options.rounds} of {options.duration} s",
        "guesthouse": first_line([str(options.guesthouse), "--version"]),
        "wrk": first_line(["wrk", "--version"]),
        "Go": first_line(["go", "version"]),
        "Rust": first_line(["rustc", "--version"]),
        "Python": platform.python_version(),
        "Crates": crates("hyper", "tokio", "wasmtime", "mimalloc"),
    }
    facts |= changes or {}
    lines = [f"# Comparison of {datetime.date.today()}", ""]
    lines += [f"* {name}: {value}" for name, value in facts.items() if value is not None]
    if not complete:
        lines += ["", "This run was interrupted."]
    lines += ["", "summary.txt has the table, raw.csv every round of every figure; the method and"]
    lines += ["its limits are in [benches/README.md](../../README.md).", ""]
    return "\n".join(lines)


def load_average():
    return f"{os.getloadavg()[0]:.2f}"


def machine():
    info = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"model name\s*:\s*(.+)", info)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    virtual = ", a virtual machine" if " hypervisor" in info else ""
    name = model[1] if model else platform.machine()
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB{virtual}"


def commit():
    git = ["git", "-C", str(ROOT)]
    changed = first_line([*git, "status", "--porcelain", "--untracked-files=no"], "")
    return first_line([*git, "rev-parse", "HEAD"]) + (" with changes" if changed else "")


def first_line(command, absent="none"):
    try:
        # wrk answers --version with exit code 1.
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return absent
    ok = done.returncode == 0 or command[0] == "wrk"
    return done.stdout.strip().split("\n")[0] if ok and done.stdout.strip() else absent


def crates(*names):
    lock = ROOT / "Cargo.lock"
    text = lock.read_text(encoding="utf-8") if lock.exists() else ""
    found = dict(re.findall(r'name = "([^"]+)"\nversion = "([^"]+)"', text))
    return ", ".join(f"{name} {found[name]}" for name in names if name in found) or "none"


def command_line():
    """The command as anyone could give it: a path outside the repository keeps its name only."""
    words = ["python3", f"benches/{pathlib.Path(sys.argv[0]).name}"]
    for word in sys.argv[1:]:
        path = pathlib.Path(word.split("=", 1)[-1])
        if path.is_absolute():
            inside = path.is_relative_to(ROOT)
            word = word.replace(str(path), str(path.relative_to(ROOT)) if inside else path.name)
        words.append(word)
    return shlex.join(words)
