"""The handler `python/fib`: naive recursion, for work that is nothing but calls.

It answers as the workload `fib` of the guests in Rust: `/fib/32` with `2178309` and a newline, and
what is not one plain decimal number up to 40 with a 400 that says so.
"""

from reply import respond
from wit_world import exports
from wit_world.imports.types import IncomingRequest, ResponseOutparam

MAX = 40
EXPECTED = b"expected one decimal number from 0 to 40 after the route, as in /fib/32\n"


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        number = number_of(base_of(request), request.path_with_query() or "/")
        if number is None:
            respond(response_out, 400, "text/plain", EXPECTED)
        else:
            respond(response_out, 200, "text/plain", f"{fibonacci(number)}\n".encode())


def base_of(request: IncomingRequest) -> str:
    """The path of the route; a host that is not Guesthouse does not say it."""
    values = request.headers().get("guesthouse-base-path")
    return values[0].decode(errors="replace") if values else "/fib"


def number_of(base: str, uri: str) -> int | None:
    """The number behind the route's path. The query does not matter."""
    path = uri.partition("?")[0]
    lead = base.rstrip("/") + "/"
    digits = path.removeprefix(lead)
    if not path.startswith(lead) or not digits.isascii() or not digits.isdecimal():
        return None
    # A zero in front would make two addresses for one resource.
    if digits != "0" and digits.startswith("0") or len(digits) > 2 or int(digits) > MAX:
        return None
    return int(digits)


def fibonacci(n: int) -> int:
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
