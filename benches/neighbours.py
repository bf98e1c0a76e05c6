"""What fairness.py measures: every figure, its cases, its target, and how one case is measured.

A measurement gets the bench, asks it for a server by name, and returns quantities by name, among
them `errors`: "" or what went wrong, which fails the figure. slow.py has the slow clients, crowd.py
the callers of hostile guests; which servers and guests there are is fairness.py's business.
"""

import collections
import concurrent.futures
import contextlib
import statistics
import subprocess
import time

import figures
import instruments
import multitude
import slow
from crowd import GoodCrowd, HostileCrowd, ahead_of_others
from figures import CLIENT_CPU, HELLO, WARM_UP_S, Case, Load, ratio
from instruments import ANSWERED_WITHIN_S, Failure
from multitude import Figure, wait_for_rest

CAPACITY_CONNECTIONS = 8
OFFERED_CONNECTIONS = 400
UNLOADED_SHARE = 0.1
OVERLOAD_SHARE = 2
# Of what was due; else the load was not what it is said to be.
SENT_SHARE_MIN = 0.99
SLOW_CLIENTS = 200
# What comes before the first measurement beside them: the large answers are made.
SLOW_BEGIN_S = 2
STEADY_PER_S = 1000
HELLO_PER_S = 500
HOSTILE = ("leak", "loop", "trap", "allocate")
BALANCE_RESTARTS = 5
PROBES_PER_S = 20
ATTACK_CONNECTIONS = 1000
# So few that it is their number which hurts, and not what they ask for meanwhile.
ATTACK_CONNECTIONS_PER_S = 100
WARM_PATHS = ("/hello", "/echo", "/big")
# What slowhttptest is asked for, and the path that it attacks.
ATTACKS = {
    "slowloris": (("-H", "-i", "5"), "/hello"),
    "slow body": (("-B", "-i", "5", "-s", "8192"), "/echo"),
    "range": (("-R", "-t", "GET"), "/big"),
    "slow read": (("-X", "-w", "10", "-y", "20", "-n", "5", "-z", "32"), "/big"),
}


class Shared:
    """A measurement that several figures are made of: the n-th round of each is the same one."""

    def __init__(self, measure):
        self.measure = measure
        self.readings = collections.defaultdict(list)

    def view(self):
        """To be the `measure` of one figure."""
        seen = collections.Counter()

        def measure(bench, case, seconds):
            readings = self.readings[case.label]
            if seen[case.label] == len(readings):
                readings.append(self.measure(bench, case, seconds))
            seen[case.label] += 1
            return readings[seen[case.label] - 1]

        return measure


def check(bench, figure):
    """One request for each case: the right answer, and its guest loaded."""
    for case in figure.cases:
        bench.check(case)


def generate(bench, server, path, seconds, connections, rate=None, cpus=None):
    """One round of `guesthouse bench`: its summary. A status other than 200 is an error."""
    flags = ["--connections", str(connections), "--status", "200", "--allow-errors"]
    if rate:
        flags += ["--rate", f"{rate:.0f}"]
    program = str(bench.options.guesthouse)
    return instruments.bench_summary(program, server.address, path, seconds, cpus, flags)


def problem(summary, *expected):
    """"" or what is wrong with a round of `guesthouse bench`, but for errors that are expected."""
    errors = {kind: count for kind, count in summary["errors"].items() if kind != "total"}
    found = [f"{count} x {kind}" for kind, count in errors.items()
             if count and kind not in expected]
    if summary.get("rate_reached", 1) < SENT_SHARE_MIN:
        found.append(f"{summary['rate_reached']:.1%} of what was due was sent")
    return ", ".join(found)


# More than there is time for.


def measure_overload(bench, case, seconds):
    """Capacity, the latency far below it, and goodput and latency at twice as much."""
    server = bench.server(case.server)
    capacity = generate(bench, server, case.path, seconds, CAPACITY_CONNECTIONS)
    served = capacity["req_per_s"]
    unloaded = generate(
        bench, server, case.path, seconds, OFFERED_CONNECTIONS, UNLOADED_SHARE * served
    )
    before = multitude.rejects(wait_for_rest(server))
    over = generate(
        bench, server, case.path, bench.options.overload_seconds, OFFERED_CONNECTIONS,
        OVERLOAD_SHARE * served,
    )
    after = multitude.rejects(wait_for_rest(server))
    reading = {f"reject_{name}": after[name] - before.get(name, 0) for name in after}
    problems = problem(capacity), problem(unloaded), problem(over, "status")
    return reading | {
        "goodput_share": over["req_per_s"] / served,
        "p99_ratio": over["p99_us"] / unloaded["p99_us"],
        "capacity_per_s": served,
        "goodput_per_s": over["req_per_s"],
        "unloaded_p50_ms": unloaded["p50_us"] / 1000,
        "unloaded_p99_ms": unloaded["p99_us"] / 1000,
        "p50_ms": over["p50_us"] / 1000,
        "p99_ms": over["p99_us"] / 1000,
        "max_ms": over["max_us"] / 1000,
        "refused": over["errors"]["status"],
        "errors": "; ".join(filter(None, problems)),
    }


# Beside slow clients.


def prepare_slow(bench, figure):
    check(bench, figure)
    instruments.get(bench.server(figure.cases[0].server).address, "/big")
    figures.measure_cpu(bench, figure.cases[0], WARM_UP_S)


def measure_slow(bench, case, seconds):
    """CPU per request in a closed loop, then the latency at a fixed rate."""
    server = bench.server(case.server)
    with contextlib.ExitStack() as ended:
        if case.label == "beside slow":
            # It inherits the CPU.
            with figures.pinned_to(int(CLIENT_CPU)):
                crowd = slow.SlowCrowd(server.address, SLOW_CLIENTS, SLOW_CLIENTS, "/big")
                ended.enter_context(crowd)
            time.sleep(SLOW_BEGIN_S)
        connections = server.counters()["connections"]
        reading = figures.measure_cpu(bench, case, seconds)
        summary = generate(
            bench, server, case.path, seconds, case.load.connections, STEADY_PER_S, CLIENT_CPU
        )
        steps = crowd.stop() if case.label == "beside slow" else {}
    wait_for_rest(server)
    reading |= {name.lower().replace(" ", "_"): count for name, count in steps.items()}
    return reading | {
        "p50_us": summary["p50_us"],
        "p99_us": summary["p99_us"],
        "connections_beside": connections,
        "errors": "; ".join(filter(None, (reading["errors"], problem(summary)))),
    }


# Beside hostile guests.


class PatientCrowd(HostileCrowd):
    """Callers that wait for each answer."""

    PATIENCE_S = (2 * ANSWERED_WITHIN_S,)
    CALLERS = 3


def prepare_contained(bench, figure):
    check(bench, figure)
    server = bench.server(figure.cases[0].server)
    multitude.settle(server)
    GoodCrowd(server.address, {"/hello": HELLO}, HELLO_PER_S).run(WARM_UP_S)


def measure_contained(bench, case, _seconds):
    """Latency of /hello at a fixed rate, alone or while each hostile guest has its callers."""
    server = bench.server(case.server)
    before = multitude.rejects(wait_for_rest(server))
    good = GoodCrowd(server.address, {case.path: case.body}, HELLO_PER_S)
    calls = {}
    with contextlib.ExitStack() as ended:
        if case.label == "beside hostile":
            crowds = {
                name: ended.enter_context(PatientCrowd(server.address, [f"/{name}"]))
                for name in HOSTILE
            }
        good.run(bench.options.contained_seconds)
        if case.label == "beside hostile":
            for name, crowd in crowds.items():
                outcomes = crowd.stop()
                calls |= {f"{name}_{outcome}": count for outcome, count in outcomes.items()}
    after = multitude.rejects(wait_for_rest(server))
    reading = good.summary() | calls
    reading |= {f"reject_{name}": after[name] - before.get(name, 0) for name in after}
    server.check_alive()
    lost = ", ".join(f"{count} x {why}" for why, count in good.lost.items())
    return reading | {"errors": f"requests to /hello lost: {lost}" if lost else ""}


# How connections are spread.


def measure_balance(bench, case, seconds):
    """A closed loop, begun anew several times: which worker a connection gets may be chance."""
    server = bench.server(case.server)
    count = case.load.connections
    seconds = max(1, seconds // BALANCE_RESTARTS)
    wait_for_rest(server)
    own = frozenset().union(*server.watched())
    summaries, most = [], []
    for _ in range(BALANCE_RESTARTS):
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            running = pool.submit(generate, bench, server, case.path, seconds, count)
            time.sleep(seconds / 2)
            most.append(max(len(epoll - own) for epoll in server.watched()))
            summaries.append(running.result())
    server.check_alive()
    p99_ms = [summary["p99_us"] / 1000 for summary in summaries]
    return {
        "requests_per_s": statistics.fmean(summary["req_per_s"] for summary in summaries),
        "requests_per_s_min": min(summary["req_per_s"] for summary in summaries),
        "p99_ms": statistics.median(p99_ms),
        "p99_ms_max": max(p99_ms),
        "most_share": statistics.fmean(most) / count,
        "most_share_max": max(most) / count,
        "errors": "; ".join(filter(None, map(problem, summaries))),
    }


# Attacks with slowhttptest.


def measure_attack(bench, case, _seconds):
    """Whether a probe is answered meanwhile, each time on a new connection; in a new server."""
    seconds = bench.options.attack_seconds
    with bench.launch(case.server) as server, contextlib.ExitStack() as ended:
        for path in WARM_PATHS:
            instruments.get(server.address, path)
        if case.label in ATTACKS:
            flags, path = ATTACKS[case.label]
            url = f"http://{server.address[0]}:{server.address[1]}{path}"
            length = ["-c", str(ATTACK_CONNECTIONS), "-r", str(ATTACK_CONNECTIONS_PER_S)]
            command = ["nice", "-n", "10", "slowhttptest", *flags, *length, "-l", str(seconds), "-u", url]
            ended.enter_context(attack(command, bench.empty_folder() / "slowhttptest.log"))
        reading = probe(server, case, seconds)
        server.check_alive()
        counters = server.counters()
        reading |= {"connections_at_end": counters["connections"]}
        reading |= {f"reject_{name}": count for name, count in multitude.rejects(counters).items()}
    return reading


@contextlib.contextmanager
def attack(command, log):
    """Runs the attack within it. One that has nothing left to do may end before."""
    with open(log, "wb") as out:
        running = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        yield
        if running.poll():
            words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise Failure(f"slowhttptest: {' / '.join(words[-3:])}")
    finally:
        running.kill()
        running.wait()


def probe(server, case, seconds):
    """Latency of requests on connections of their own, one at a time, from when each was due."""
    times_ms, lost, rss_bytes = [], collections.Counter(), 0
    with ahead_of_others():
        start_s = time.perf_counter()
        for number in range(seconds * PROBES_PER_S):
            due_s = start_s + number / PROBES_PER_S
            time.sleep(max(due_s - time.perf_counter(), 0))
            try:
                status, body = instruments.get(server.address, case.path)
            except (OSError, Failure) as error:
                lost[str(error)] += 1
                continue
            if status == 200 and body == case.body:
                times_ms.append((time.perf_counter() - due_s) * 1000)
            else:
                lost[f"status {status}"] += 1
            if number % PROBES_PER_S == 0:
                rss_bytes = max(rss_bytes, server.rss_bytes())
    if len(times_ms) < 2:
        raise Failure(f"{len(times_ms)} probes are answered: no percentile")
    return {
        "lost": lost.total(),
        "p50_ms": statistics.median(times_ms),
        "p99_ms": statistics.quantiles(times_ms, n=100)[98],
        "max_ms": max(times_ms),
        "probes": len(times_ms),
        "rss_mib_max": rss_bytes / 2**20,
        "errors": ", ".join(f"probes lost: {count} x {why}" for why, count in lost.items()),
    }


OVERLOAD = Shared(measure_overload)
SLOW = Shared(measure_slow)
CONTAINED = Shared(measure_contained)
OVERLOADED = (Case("fib", "guests", "/fib/28", b"317811\n"),)
BESIDE_SLOW = (Case("alone", "one worker", "/hello"), Case("beside slow", "one worker", "/hello"))
BESIDE_HOSTILE = (Case("alone", "guests", "/hello"), Case("beside hostile", "guests", "/hello"))


def balance(connections):
    load = Load(connections, cpus=None)
    cases = tuple(
        Case(name, f"balance {name}", "/fib/20", b"6765\n", load) for name in ("least", "kernel")
    )
    return Figure(
        f"balance-{connections}", f"{connections} connections, least / kernel, requests/s", None,
        cases, ratio("least", "kernel"), measure_balance, "requests_per_s",
        case_shown="{:.0f}/s", prepare=check,
        also=("most_share", "most_share_max", "p99_ms", "p99_ms_max", "requests_per_s_min"),
    )


FIGURES = (
    Figure(
        "overload-goodput", "goodput at twice the capacity / capacity", None,
        OVERLOADED, lambda values: values["fib"], OVERLOAD.view(), "goodput_share",
        case_shown="{:.3f}", prepare=check, at_least=0.9,
        also=("capacity_per_s", "goodput_per_s", "refused"),
    ),
    Figure(
        "overload-p99", "p99 at twice the capacity / unloaded", 10.0,
        OVERLOADED, lambda values: values["fib"], OVERLOAD.view(), "p99_ratio",
        "{:.2f}", "{:.2f}", check,
        ("unloaded_p50_ms", "unloaded_p99_ms", "p50_ms", "p99_ms", "max_ms"),
    ),
    Figure(
        "slow-clients-cpu", "/hello beside 400 slow clients / alone, CPU", 1.05,
        BESIDE_SLOW, ratio("beside slow", "alone"), SLOW.view(), prepare=prepare_slow,
        also=("requests_per_s", "connections_beside"),
    ),
    Figure(
        "slow-clients-p99", "/hello beside 400 slow clients / alone, p99", 1.5,
        BESIDE_SLOW, ratio("beside slow", "alone"), SLOW.view(), "p99_us",
        "{:.2f}", "{:.0f} us", prepare_slow, ("p50_us",),
    ),
    Figure(
        "contained-lost", "/hello lost beside hostile guests", 0,
        BESIDE_HOSTILE, lambda values: values["beside hostile"], CONTAINED.view(), "lost",
        "{:.0f}", "{:.0f}", prepare_contained,
        (
            "good", *(f"{name}_200" for name in HOSTILE), *(f"{name}_500" for name in HOSTILE),
            *(f"{name}_503" for name in HOSTILE), *(f"{name}_504" for name in HOSTILE),
        ),
    ),
    Figure(
        "contained-p99", "/hello beside hostile guests / alone, p99", 2.0,
        BESIDE_HOSTILE, ratio("beside hostile", "alone"), CONTAINED.view(), "p99_ms",
        "{:.2f}", "{:.3f} ms", prepare_contained,
        ("p50_ms", "p999_ms", "max_ms", "client_late_p99_ms"),
    ),
    Figure(
        "lanes", "/hello, two lanes / one, CPU", 1.05,
        (Case("on", "lanes on", "/hello"), Case("off", "lanes off", "/hello")),
        ratio("on", "off"),
    ),
    balance(8),
    balance(64),
    Figure(
        "slowhttptest", "probes lost during four attacks", 0,
        tuple(Case(label, "attacked", "/hello") for label in ("alone", *ATTACKS)),
        lambda values: sum(values.values()), measure_attack, "lost",
        "{:.0f}", "{:.0f}", None,
        ("probes", "p50_ms", "p99_ms", "max_ms", "rss_mib_max", "connections_at_end"),
    ),
)
