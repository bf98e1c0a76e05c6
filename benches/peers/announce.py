"""Starts a peer on a free port and says where it listens, as a guesthouse does: for compare.py.

usage: announce.py PROGRAM
"""

import contextlib
import signal
import socket
import subprocess
import sys
import time

PATIENCE_S = 60


def main():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    peer = subprocess.Popen([sys.argv[1], str(port)])
    # Its end is that of the peer, which may have processes of its own to end.
    signal.signal(signal.SIGTERM, lambda *_: peer.terminate())
    began_s = time.monotonic()
    while peer.poll() is None and time.monotonic() < began_s + PATIENCE_S:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            print(f"listening on http://127.0.0.1:{port}", file=sys.stderr, flush=True)
            break
        time.sleep(0.05)
    return peer.wait()


if __name__ == "__main__":
    sys.exit(main())
