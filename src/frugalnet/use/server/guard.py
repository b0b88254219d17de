"""Around the application: names, headers and counts, for every request alike."""

import time

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frugalnet.use.server.api import Problem
from frugalnet.use.server.hosts import Hosts
from frugalnet.use.server.metrics import Metrics

_POLICY = (  # nothing from elsewhere, no code in the page itself
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
]


class Guard:
    """Refuses requests for another host, adds headers that a browser obeys, and counts."""

    def __init__(self, app: ASGIApp, hosts: Hosts, metrics: Metrics) -> None:
        self.app = app
        self.hosts = hosts
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status = 500
        start = time.perf_counter()

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        host = Headers(scope=scope).get("host", "")
        with self.metrics.running.track_inprogress():
            if self.hosts.allows(host):
                await self.app(scope, receive, answer)
            else:
                await _refuse_host(host)(scope, receive, answer)
        path = getattr(scope.get("route"), "path", "other")  # what was asked for is not a bounded set
        self.metrics.requests.labels(path, status).inc()
        self.metrics.seconds.labels(path).observe(time.perf_counter() - start)


def _refuse_host(host: str) -> JSONResponse:
    detail = f"Host: expected an address or localhost, found {host[:100]!r}; allow a name with --allow-host"
    return JSONResponse(Problem(detail=detail).model_dump(), 421)
