"""The handler `python/hello`: the least that a handler can do."""

from reply import respond
from wit_world import exports
from wit_world.imports.types import IncomingRequest, ResponseOutparam


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        respond(response_out, 200, "text/plain", b"Hello, World!")
