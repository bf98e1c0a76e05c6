"""What the handlers share: a whole answer at once."""

from componentize_py_types import Ok
from wit_world.imports.types import (
    Fields,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

# Bytes that one write to a body may have, by the contract of WASI.
WRITE_BYTES_MAX = 4096


def respond(
    response_out: ResponseOutparam, status: int, content_type: str, content: bytes
) -> None:
    """Answers with a status, a type and a body."""
    fields = Fields.from_list([("content-type", content_type.encode())])
    response = OutgoingResponse(fields)
    if status != 200:
        response.set_status_code(status)
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    # The stream has to be closed before the body is finished.
    with body.write() as stream:
        for start in range(0, len(content), WRITE_BYTES_MAX):
            stream.blocking_write_and_flush(content[start : start + WRITE_BYTES_MAX])
    OutgoingBody.finish(body, None)
