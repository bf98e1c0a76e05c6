"""An HTTP handler: answers every request with a line of text."""

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    Method_Get,
    Method_Head,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

TEXT = ("content-type", b"text/plain; charset=utf-8")


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        """Called for each request. What is at the top of this file runs once, at the build."""
        if isinstance(request.method(), (Method_Get, Method_Head)):
            respond(response_out, 200, [TEXT], b"Hello, World!\n")
        else:
            respond(response_out, 405, [("allow", b"GET, HEAD")], b"")


def respond(
    response_out: ResponseOutparam,
    status: int,
    headers: list[tuple[str, bytes]],
    content: bytes,
) -> None:
    response = OutgoingResponse(Fields.from_list(headers))
    response.set_status_code(status)
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    # The stream has to be closed before the body is finished.
    with body.write() as stream:
        # One write may have 4,096 bytes.
        for start in range(0, len(content), 4096):
            stream.blocking_write_and_flush(content[start : start + 4096])
    OutgoingBody.finish(body, None)
