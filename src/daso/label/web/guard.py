"""Answer only the page whose address this process printed."""

from __future__ import annotations

import hmac
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daso.errors import OptionError

TOKEN_HEADER = "x-daso-token"
MOST_BYTES = 1 << 20
"""Largest body of a request."""
OPEN_PATHS = ("/static/",)
"""Files of the program itself, which the page that refuses a visitor needs too."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def cookie_name(port: int) -> str:
    """Return the name of the cookie; browsers share cookies between the ports of a host."""
    return f"daso-label-{port}"


class Guard:
    """Refuses requests of other pages, and of visitors without the token.

    A page elsewhere may send requests here (its Origin is foreign), or let its own name point to
    this computer (the Host is foreign). Neither knows the token.

    Args:
        app: what is guarded.
        token: secret of this process.
        hosts: the values of Host that are meant, with the port.
        port: on which the server listens.
        refused: returns the page for a visitor without the token.
    """

    def __init__(
        self, app: ASGIApp, token: str, hosts: Collection[str], port: int, refused: str
    ) -> None:
        if not token:
            raise OptionError("the token of daso label is empty")
        self.app, self.token, self.port, self.refused = app, token, port, refused
        self.hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._refuse(Request(scope)) or self.app
        await answer(scope, receive, send_guarded)

    def _refuse(self, request: Request) -> Response | None:
        """Return the answer to a request that is not let through, else None."""
        headers = request.headers
        if len(headers.getlist("host")) != 1 or headers["host"].lower() not in self.hosts:
            return _error(421, "this is not the address that daso label printed")
        if request.method not in ("GET", "HEAD", "POST"):
            return _error(405, f"{request.method} is not a method of this server")
        path = request.url.path
        if request.method != "POST" and path.startswith(OPEN_PATHS):
            return None
        if not self._knows_token(request):
            if path == "/" and request.method != "POST":
                return Response(self.refused, 403, media_type="text/html")
            return _error(403, "the token is missing or of an earlier start; open the new address")
        return self._refuse_change(headers) if request.method == "POST" else None

    def _knows_token(self, request: Request) -> bool:
        if request.method == "POST":  # a cookie alone changes nothing
            offered = request.headers.get(TOKEN_HEADER, "")
        else:
            offered = request.cookies.get(cookie_name(self.port), "")
            if request.url.path == "/":
                offered = request.query_params.get("token", offered)
        return hmac.compare_digest(offered.encode(), self.token.encode())

    def _refuse_change(self, headers: Headers) -> Response | None:
        scheme, _, origin = headers.get("origin", "").lower().partition("://")
        if scheme not in ("http", "https") or origin != headers["host"].lower():
            return _error(403, "a page of another origin may not change labels")
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _error(415, "the body must be application/json")
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()) or len(length) > 12:
            return _error(411, "the body's length must be given")
        if int(length) > MOST_BYTES:
            return _error(413, f"the body has over {MOST_BYTES:,} bytes")
        return None


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)
