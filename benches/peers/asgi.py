"""The peer that is uvicorn: an ASGI application without a framework."""

from answers import answer


async def app(scope, _receive, send):
    status, body = answer(scope["path"])
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
