"""The peer that is granian: an application by its own interface, RSGI."""

from answers import answer

HEADERS = [("content-type", "text/plain")]


async def app(scope, protocol):
    status, body = answer(scope.path)
    protocol.response_bytes(status, HEADERS, body)
