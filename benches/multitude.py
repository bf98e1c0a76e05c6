"""What strangers.py measures: every figure, its cases, its target, and how one case is measured.

A measurement gets the bench, asks it for a server by name, and returns quantities by name, among
them `errors`: "" or what went wrong, which fails the figure. swapper.py replaces guests, crowd.py
calls good and hostile ones; which servers and folders there are is strangers.py's business.
"""

import contextlib
import dataclasses
import random
import shutil
import statistics
import time

import compare
import figures
import instruments
from crowd import GOOD_CONNECTIONS, GoodCrowd, HostileCrowd, ask_each
from figures import WARM_UP_S, Case, Load, ratio
from instruments import Failure
from swapper import VERSIONS, Swapper, drops_ms, place, swap_guest

LOADED_WITHIN_S = 900
AT_REST_WITHIN_S = 30
DROPS = 20
GOOD_PER_S = 500
# A guest that loops meets the one limit or the other while some of its callers still wait.
HOSTILE_FLAGS = ("--deadline", "1s", "--cpu-max", "100ms")
# One guest in ten, and more room than all of them need.
READY_SHARE = 0.1
READY_TOLERANCE = 0.1
READY_ATTEMPTS = 6
LOADED_KIB_MIN = 1 << 10
LOADED_KIB_ALL = 64 << 20
# Compiles each version, and fills what a busy host keeps.
WARM_UP_SWAPS = 5 * VERSIONS
GROWTH_SHARE_MAX = 0.1
GROWTH_MIB_MAX = 16
GROWTH_DESCRIPTORS_MAX = 8
ZIPF = Load(cpus=None, script=compare.BENCHES / "zipf.lua")
# Each picks its paths itself; wrk only wants one to begin with.
ANY = "/"


@dataclasses.dataclass(frozen=True)
class Figure(figures.Figure):
    """`also` names quantities that the summary shows beside the one which is judged."""

    also: tuple[str, ...] = ()


# How many guests are in which state.


def settle(server):
    """Waits until no guest has changed its state for a second: how many are in which."""
    names = ("cold", "loading", "ready", "failed")
    before, since_s = None, 0
    end_s = time.perf_counter() + LOADED_WITHIN_S
    while (now_s := time.perf_counter()) < end_s:
        counters = server.counters()
        if missing := set(names) - counters.keys():
            raise Failure(f"the server does not count what is {', '.join(sorted(missing))}")
        states = {name: counters[name] for name in names}
        if states != before or states["loading"]:
            before, since_s = states, now_s
        elif now_s > since_s + 1:
            return states
        time.sleep(0.1)
    raise Failure(f"guests are still being loaded after {LOADED_WITHIN_S} s")


def wait_for_rest(server):
    """Its counters once no request is in flight: a hostile guest may outlive its caller."""
    end_s = time.perf_counter() + AT_REST_WITHIN_S
    while time.perf_counter() < end_s:
        counters = server.counters()
        if counters["in_flight"] == counters["instances_out"] == 0:
            return counters
        time.sleep(0.1)
    raise Failure(f"requests are in flight {AT_REST_WITHIN_S} s after the last caller has gone")


# CPU time.


def prepare_zipf(bench, figure):
    bench.fill_cache()
    bench.load_all(bench.server("many"))
    for case in figure.cases:
        if errors := measure_zipf(bench, case, WARM_UP_S)["errors"]:
            raise Failure(f"warm-up of {case.label}: {errors}")


def measure_zipf(bench, case, seconds):
    """CPU time per request while wrk asks for all good guests, or for one of them."""
    paths = [bench.next_good()] if case.label == "one" else bench.good
    bench.aim_zipf_at(paths)
    reading = figures.measure_cpu(bench, case, seconds)
    if case.server == "go":
        return reading
    counters = bench.server(case.server).counters()
    states = {name: counters[name] for name in ("ready", "cold", "loading", "failed")}
    return reading | states | {"paths": len(paths), "first_path": paths[0]}


# Start.


def fill_cache(bench, _figure):
    bench.fill_cache()


def measure_start(bench, case, _seconds):
    """Time from exec to the first 200; the case `empty cache` has nothing compiled."""
    cache = bench.empty_folder() if case.label == "empty cache" else None
    path = bench.next_good()
    with bench.launch(case.server, cache) as server:
        listening_ms = (time.perf_counter() - server.started_at_s) * 1000
        ms = instruments.first_success_s(server, path) * 1000
    return {"ms": ms, "listening_ms": listening_ms, "path": path, "errors": ""}


# Every guest once.


def measure_once(bench, case, _seconds):
    """Good guests that do not answer right when 50 connections ask for every guest once.

    A server that has just started; the case `empty cache` has nothing compiled.
    """
    cache = bench.empty_folder() if case.label == "empty cache" else None
    # Another order each time.
    everyone = bench.good + bench.hostile
    paths = random.sample(everyone, len(everyone))
    with bench.launch(case.server, cache) as server:
        start_s = time.perf_counter()
        answers = {path: bench.answers.get(path) for path in paths}
        asked = ask_each(server.address, answers, GOOD_CONNECTIONS)
        took_s = time.perf_counter() - start_s
        counters = server.counters()
        reading = {"wrong": asked.wrong.total(), "asked": len(bench.good), "took_s": took_s}
        reading |= {"longest_ms": asked.longest_s * 1000, "mappings": server.mappings()}
        reading |= {"rss_mib": server.rss_bytes() / 2**20, "descriptors": server.descriptors()}
    reading |= {name: counters[name] for name in ("ready", "cold", "loading", "failed")}
    reading |= {f"wrong_{why.replace(' ', '_')}": count for why, count in asked.wrong.items()}
    if cache:
        # Some 200 MiB, of each round.
        shutil.rmtree(cache)
    # What is wrong is the figure itself, and fails it by its target.
    return reading | {"errors": ""}


# Replacing a guest.


def prepare_drop(bench, figure):
    bench.fill_cache()
    for case in figure.cases:
        place(dropped(bench, case), bench.hello.new()[0], in_place=False)
        server = bench.server(case.server)
        instruments.first_success_s(server, case.path)
        settle(server)


def dropped(bench, case):
    return bench.folders[case.server] / f"{case.path[1:]}.wasm"


def measure_drop_cold(bench, case, _seconds):
    """Time from a new file, with bytes never seen before, to its first answer."""
    return measure_drops(bench, case, [bench.hello.new() for _ in range(DROPS)])


def measure_drop_warm(bench, case, _seconds):
    """The same with bytes that were compiled before and served in between."""
    if not bench.compiled:
        bench.compiled = [bench.hello.new() for _ in range(DROPS)]
        measure_drops(bench, case, bench.compiled)
    return measure_drops(bench, case, bench.compiled)


def measure_drops(bench, case, versions):
    server = bench.server(case.server)
    times = drops_ms(server.address, case.path, dropped(bench, case), versions)
    server.check_alive()
    return {
        "ms": statistics.median(times),
        "ms_max": max(times),
        "renamed_ms": statistics.median(times[::2]),
        "in_place_ms": statistics.median(times[1::2]),
        "drops": len(times),
        "errors": "",
    }


def measure_swaps(bench, case, _seconds):
    """Answers that failed or were of two versions; memory and descriptors have to stay."""
    file = bench.folders[case.server] / f"{case.path[1:]}.wat"
    place(file, swap_guest(0), in_place=False)
    with bench.launch(case.server) as server:
        instruments.first_success_s(server, case.path)
        start = held(server)
        swapper = Swapper(server.address, case.path, file)
        swapper.swap(WARM_UP_SWAPS)
        warm = held(server)
        seen_ms = swapper.swap(bench.options.swaps)
        end = held(server)
    counts = swapper.counts
    problems = [f"{key}: {count}" for key, count in counts.items() if key.startswith("failed: ")]
    problems += [f"mixed: {counts['mixed']}"] if counts["mixed"] else []
    problems += growth(warm, end)
    reading = {"wrong": counts["failed"] + counts["mixed"], "swaps": swapper.swaps}
    reading |= {name: counts[name] for name in ("answers", "failed", "mixed", "went_back")}
    reading |= {"seen_ms": statistics.median(seen_ms), "seen_ms_max": max(seen_ms)}
    for when, found in (("start", start), ("warm", warm), ("end", end)):
        reading |= {f"{when}_{name}": value for name, value in found.items()}
    return reading | {"errors": "; ".join(problems)}


def held(server):
    """What a server keeps at rest."""
    wait_for_rest(server)
    rss_mib = server.rss_settled_bytes() / 2**20
    return {
        "rss_mib": rss_mib,
        "descriptors": server.descriptors(),
        "mappings": server.mappings(),
    }


def growth(before, after):
    allowed_mib = max(before["rss_mib"] * GROWTH_SHARE_MAX, GROWTH_MIB_MAX)
    if after["rss_mib"] > before["rss_mib"] + allowed_mib:
        yield f"memory grew from {before['rss_mib']:.0f} to {after['rss_mib']:.0f} MiB"
    if after["descriptors"] > before["descriptors"] + GROWTH_DESCRIPTORS_MAX:
        yield f"descriptors grew from {before['descriptors']} to {after['descriptors']}"


# Memory.


def measure_memory(bench, case, seconds):
    """Resident memory, at rest or after load, whichever is more; a server of its own each time."""
    if case.label == "all ready":
        return measure_loaded(bench, case, LOADED_KIB_ALL, seconds)
    wanted, readings = round(len(bench.good) * READY_SHARE), []
    for _ in range(READY_ATTEMPTS):
        reading = measure_loaded(bench, case, bench.loaded_kib, seconds)
        readings.append(reading)
        if abs(reading["ready"] - wanted) <= wanted * READY_TOLERANCE:
            break
        scaled = bench.loaded_kib * wanted / max(reading["ready"], 1)
        bench.loaded_kib = min(max(round(scaled), LOADED_KIB_MIN), LOADED_KIB_ALL)
    return min(readings, key=lambda it: abs(it["ready"] - wanted))


def measure_loaded(bench, case, loaded_kib, seconds):
    bench.aim_zipf_at(bench.good)
    with bench.launch(case.server, flags=("--loaded-max", f"{loaded_kib}KiB")) as server:
        states = settle(server)
        rest = memory(server)
        _, _, errors = instruments.wrk(
            server.address, ANY, seconds, ZIPF.connections, ZIPF.cpus, ZIPF.script
        )
        used_states = settle(server)
        used = memory(server)
    reading = {"rss_mib": max(rest["rss_mib"], used["rss_mib"])}
    reading["loaded_max_mib"] = loaded_kib / 1024
    reading |= states | {f"used_{name}": count for name, count in used_states.items()}
    for when, found in (("rest", rest), ("used", used)):
        reading |= {f"{when}_{name}": value for name, value in found.items()}
    return reading | {"errors": errors}


def memory(server):
    """In MiB, by kind: what is not anonymous is the program and files in the page cache."""
    server.rss_settled_bytes()
    kinds = ("Rss", "Anonymous", "Private_Dirty", "Private_Clean", "Shared_Clean", "Swap")
    found = server.memory_kib()
    mib = {f"{kind.lower()}_mib": found[kind] / 1024 for kind in kinds if kind in found}
    return mib | {"mappings": server.mappings(), "descriptors": server.descriptors()}


# Beside hostile guests.


def prepare_hostile(bench, figure):
    bench.fill_cache()
    server = bench.server(figure.cases[0].server)
    bench.load_all(server)
    GoodCrowd(server.address, bench.answers, GOOD_PER_S).run(WARM_UP_S)


def measure_good(bench, case, _seconds):
    """Latency of good requests at a fixed rate, alone or while hostile guests are called."""
    server = bench.server(case.server)
    before = wait_for_rest(server)
    good = GoodCrowd(server.address, bench.answers, GOOD_PER_S)
    calls = {}
    with contextlib.ExitStack() as ended:
        if case.label == "beside hostile":
            hostile = ended.enter_context(HostileCrowd(server.address, bench.hostile))
        good.run(bench.options.hostile_seconds)
        if case.label == "beside hostile":
            calls = hostile.stop()
    after = wait_for_rest(server)
    before, after = rejects(before), rejects(after)
    reading = good.summary() | {"hostile_calls": sum(calls.values())}
    reading |= {f"hostile_{outcome}": count for outcome, count in sorted(calls.items())}
    reading |= {f"reject_{name}": after[name] - before.get(name, 0) for name in after}
    lost = ", ".join(f"{count} x {why}" for why, count in good.lost.items())
    return reading | {"errors": f"good requests lost: {lost}" if lost else ""}


def rejects(counters):
    pairs = (pair.split(":") for pair in counters["rejects"].split())
    return {name: int(count) for name, count in pairs}


def drop(name, title, at_most, measure):
    return Figure(
        name, title, at_most,
        (Case("one guest", "drop one", "/dropped"), Case("10,000", "drop many", "/dropped")),
        lambda values: values["one guest"],
        measure, "ms", "{:.0f} ms", "{:.0f} ms", prepare_drop,
        ("ms_max", "renamed_ms", "in_place_ms"),
    )


FIGURES = (
    Figure(
        "zipf", "10,000 guests by Zipf / one of them, CPU", 1.5,
        (Case("all", "many", ANY, load=ZIPF), Case("one", "many", ANY, load=ZIPF)),
        ratio("all", "one"), measure_zipf, prepare=prepare_zipf, also=("ready", "cold", "failed"),
    ),
    Figure(
        "zipf-go", "10,000 guests by Zipf / Go net/http, CPU (aim 1.0)", 1.2,
        (Case("guests", "many", ANY, load=ZIPF), Case("go", "go", ANY, load=ZIPF)),
        ratio("guests", "go"), measure_zipf, prepare=prepare_zipf, also=("ready", "cold"),
    ),
    Figure(
        "start-many", "start with 10,000 guests, exec to first 200", 1000.0,
        (Case("empty cache", "many", ANY), Case("warm cache", "many", ANY)),
        lambda values: values["warm cache"],
        measure_start, "ms", "{:.0f} ms", "{:.0f} ms", fill_cache, ("listening_ms",),
    ),
    Figure(
        "once", "good guests not answered right, all asked once by 50 connections", 0,
        (Case("empty cache", "many", ANY), Case("warm cache", "many", ANY)),
        lambda values: max(values.values()),
        measure_once, "wrong", "{:.0f}", "{:.0f}", fill_cache,
        ("wrong", "asked", "took_s", "longest_ms", "mappings", "ready", "cold", "failed"),
    ),
    drop("drop-cold", "new file to its first answer, compiled", 500.0, measure_drop_cold),
    drop("drop-warm", "new file to its first answer, cached", 50.0, measure_drop_warm),
    Figure(
        "memory", "RSS, 10,000 guests known, 1,000 ready", 1024.0,
        (Case("1,000 ready", "many", ANY), Case("all ready", "many", ANY)),
        lambda values: values["1,000 ready"],
        measure_memory, "rss_mib", "{:.0f} MiB", "{:.0f} MiB", fill_cache,
        (
            "ready", "used_ready", "loaded_max_mib", "rest_rss_mib", "rest_anonymous_mib",
            "used_rss_mib", "used_anonymous_mib", "used_mappings",
        ),
    ),
    Figure(
        "swaps", "answers that fail or mix versions while a guest is swapped", 0,
        (Case("swaps", "swap", "/swap"),), lambda values: values["swaps"],
        measure_swaps, "wrong", "{:.0f}", "{:.0f}", None,
        (
            "swaps", "answers", "failed", "mixed", "went_back", "seen_ms", "seen_ms_max",
            "start_rss_mib", "warm_rss_mib", "end_rss_mib",
            "start_descriptors", "warm_descriptors", "end_descriptors",
        ),
    ),
    Figure(
        "hostile", "good requests, p99 beside hostile guests / alone", 3.0,
        (Case("alone", "hostile", ANY), Case("beside hostile", "hostile", ANY)),
        ratio("beside hostile", "alone"),
        measure_good, "p99_ms", "{:.2f}", "{:.2f} ms", prepare_hostile,
        ("good", "lost", "p50_ms", "p999_ms", "max_ms", "client_late_p99_ms", "hostile_calls"),
    ),
)
