"""Uploads that come in pieces with long pauses, to a host that is older than its time-outs.

    cargo build --release && python3 benches/uploads.py --name my-machine

A thousand uploads of 1 to 4 MB, with and without `Expect: 100-continue`, to every form of handler
that the demo has, its twins and an upstream, all at the default limits: pauses of 0 to 5 s, on a
host that is older than a minute. Writes benches/runs/<date>-<name>/: a line for each upload, and a
table of those that were lost. Takes some three minutes.
"""

import argparse
import asyncio
import collections
import csv
import datetime
import pathlib
import platform
import random
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
AGE_S = 65
PAUSE_MAX_S = 5.0
BYTES_MIN, BYTES_MAX = 1_000_000, 4_000_000
PIECES_MIN, PIECES_MAX = 4, 12
# What reads a body: a core guest, a component, the twin of each, and an upstream behind `/other`.
PATHS = ["/echo", "/stream/upper", "/native/echo", "/native/stream/upper", "/other"]
FIELDS = ["path", "expect", "bytes", "pieces", "outcome", "status", "body_bytes", "seconds"]


async def answer(reader):
    """The status and the length of the body of the next answer, and how many 1xx came before."""
    interim = 0
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split(" ", 2)[1])
        if status >= 200:
            break
        interim += 1
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    if "content-length" in fields:
        return status, len(await reader.readexactly(int(fields["content-length"]))), interim
    count = 0
    while True:
        size = int(await reader.readuntil(b"\r\n"), 16)
        await reader.readexactly(size + 2)
        if size == 0:
            return status, count, interim
        count += size


async def upload(port, path, expect, chance):
    """One upload; its row."""
    size = chance.randint(BYTES_MIN, BYTES_MAX)
    pieces = chance.randint(PIECES_MIN, PIECES_MAX)
    row = {"path": path, "expect": expect, "bytes": size, "pieces": pieces}
    row |= {"outcome": "lost", "status": "", "body_bytes": ""}
    loop = asyncio.get_running_loop()
    begun = loop.time()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        reading = asyncio.create_task(answer(reader))
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n"
        head += "Expect: 100-continue\r\n\r\n" if expect else "\r\n"
        writer.write(head.encode("ascii"))
        piece = -(-size // pieces)
        for at in range(0, size, piece):
            await asyncio.sleep(chance.uniform(0, PAUSE_MAX_S))
            writer.write(b"x" * min(piece, size - at))
            await writer.drain()
        status, body_bytes, interim = await reading
        row |= {"status": status, "body_bytes": body_bytes}
        if status == 200 and body_bytes >= size and interim == int(expect):
            row["outcome"] = "answered"
        writer.close()
    except (OSError, EOFError, asyncio.IncompleteReadError) as error:
        row["outcome"] = f"lost: {type(error).__name__}"
    row["seconds"] = round(loop.time() - begun, 3)
    return row


async def measure(port, count, at_once):
    chance = random.Random(1)
    places = asyncio.Semaphore(at_once)

    async def one(number):
        path = PATHS[number % len(PATHS)]
        async with places:
            expect = number // len(PATHS) % 2 == 1
            return await upload(port, path, expect, random.Random(chance.random()))

    return await asyncio.gather(*(one(number) for number in range(count)))


def serve(program, *args):
    """A host on a port of its own, and that port."""
    words = [program, "demo", "--listen", "127.0.0.1:0", *args]
    host = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    for line in host.stderr:
        if "listening on http://" in line:
            port = int(line.split("http://", 1)[1].split("/")[0].split()[0].rsplit(":", 1)[1])
            return host, port
    raise SystemExit("the host did not start")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, help="of the machine, for the folder of the run")
    parser.add_argument("--program", default=str(ROOT / "target/release/guesthouse"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=250)
    parser.add_argument("--age", type=float, default=AGE_S, help="of the host, in seconds")
    args = parser.parse_args()
    above, above_port = serve(args.program, "--also", "none")
    # What no route takes goes on to the other host's own handler.
    upstream = f"http://127.0.0.1:{above_port}/echo"
    host, port = serve(args.program, "--also", "none", "--upstream", upstream)
    try:
        asyncio.run(asyncio.sleep(args.age))
        rows = asyncio.run(measure(port, args.count, args.at_once))
    finally:
        for process in (host, above):
            process.terminate()
            process.wait()
    folder = ROOT / "benches/runs" / f"{datetime.date.today()}-{args.name}-uploads"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "raw.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    all_of = collections.Counter(row["path"] for row in rows)
    lost = collections.Counter(row["path"] for row in rows if row["outcome"] != "answered")
    lines = [f"{platform.platform()}, Python {platform.python_version()}", ""]
    lines += ["| path | uploads | lost |", "|---|---|---|"]
    lines += [f"| `{path}` | {all_of[path]} | {lost[path]} |" for path in PATHS]
    lines += [f"| all | {len(rows)} | {lost.total()} |"]
    text = "\n".join(lines) + "\n"
    (folder / "README.md").write_text(text)
    print(text, end="")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
