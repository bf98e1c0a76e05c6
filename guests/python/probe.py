"""A handler that does as the last part of its path says, for the host's tests."""

import secrets
import sys

from componentize_py_types import Err, Ok
from reply import WRITE_BYTES_MAX, respond
from wit_world import exports
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.types import (
    Fields,
    IncomingBody,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

TEXT = "text/plain"

# How many requests this instance has seen.
count = 0


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        global count
        count += 1
        path = (request.path_with_query() or "/").partition("?")[0]
        what = path.rpartition("/")[2]
        BEHAVIOURS[what](request, response_out)


def answer(content: bytes):
    return lambda request, response_out: respond(response_out, 200, TEXT, content)


def counted(request: IncomingRequest, response_out: ResponseOutparam) -> None:
    respond(response_out, 200, TEXT, str(count).encode())


def echo(request: IncomingRequest, response_out: ResponseOutparam) -> None:
    """Gives the body back as it comes."""
    response = OutgoingResponse(Fields.from_list([("content-type", TEXT.encode())]))
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    with body.write() as stream:
        for piece in pieces(request.consume()):
            stream.blocking_write_and_flush(piece)
    OutgoingBody.finish(body, None)


def length(request: IncomingRequest, response_out: ResponseOutparam) -> None:
    total = sum(len(piece) for piece in pieces(request.consume()))
    respond(response_out, 200, TEXT, str(total).encode())


def pieces(body: IncomingBody):
    with body.stream() as stream:
        while True:
            try:
                yield stream.blocking_read(WRITE_BYTES_MAX)
            except Err as error:
                if isinstance(error.value, StreamError_Closed):
                    return
                raise


def fail(request: IncomingRequest, response_out: ResponseOutparam) -> None:
    raise ValueError("it was asked to fail")


def fail_late(request: IncomingRequest, response_out: ResponseOutparam) -> None:
    """Fails when a part of its answer is on the way."""
    response = OutgoingResponse(Fields())
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    with body.write() as stream:
        stream.blocking_write_and_flush(b"the beginning")
        raise ValueError("it was asked to fail")


def say(request: IncomingRequest, response_out: ResponseOutparam) -> None:
    print("said on stdout")
    print("said on stderr", file=sys.stderr)
    respond(response_out, 200, TEXT, b"said")


def secret(request: IncomingRequest, response_out: ResponseOutparam) -> None:
    respond(response_out, 200, TEXT, secrets.token_hex(16).encode())


def allocate(request: IncomingRequest, response_out: ResponseOutparam) -> None:
    """Takes what memory there is."""
    taken = []
    while True:
        taken.append(bytearray(8 << 20))


BEHAVIOURS = {
    "allocate": allocate,
    "count": counted,
    "echo": echo,
    "fail": fail,
    "fail-late": fail_late,
    "length": length,
    "long": answer(b"0123456789" * 10_000),
    "say": say,
    "secret": secret,
}
