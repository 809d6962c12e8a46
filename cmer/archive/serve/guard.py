"""What every request passes before anything else: who may ask, how much a request may hold, and headers of answers."""

from __future__ import annotations

import re
import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 20 * 2**20
"""Bytes of a request: an uploaded image and the fields beside it."""
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
COOKIE = "cmer_token"
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Refuses requests without the token, to other host names, or with too large a body.

    Without a token, only the names of this machine are answered: otherwise, a page of another site could read the
    archive through a name of its own that leads to 127.0.0.1. With a token, a browser opens `/?token=…` once and keeps
    it in a cookie; programs send `Authorization: Bearer …`.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        answer = self._refusal(scope) or self.app
        await answer(scope, _counted(receive), _with_headers(send))

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        if not self.token:
            known = re.sub(":[0-9]*$", "", headers.get("host", "").lower()) in LOOPBACK
            return None if known else _problem(400, "not served under this name; open the address that was printed")
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[-1]
        if scope["path"] == "/" and self._is_token(given):
            response = RedirectResponse("/", 303)
            response.set_cookie(COOKIE, given, httponly=True, samesite="strict")
            return response
        return None if self._knows(headers) else _problem(401, "open the address with ?token=… once, or send the token")

    def _knows(self, headers: Headers) -> bool:
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(headers.get("cookie", ""))
        except CookieError:
            return False
        scheme, _, given = headers.get("authorization", "").partition(" ")
        kept = cookies[COOKIE].value if COOKIE in cookies else ""
        return self._is_token(kept) or (scheme.lower() == "bearer" and self._is_token(given))

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self.token.encode())


def _problem(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)


def _counted(receive: Receive) -> Receive:
    """The request's body up to `LARGEST_BODY`, whether or not the request states its length."""
    size = 0

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > LARGEST_BODY:
            raise HTTPException(413, f"the request is larger than {LARGEST_BODY // 2**20} MiB; send a smaller image")
        return message

    return limited


def _with_headers(send: Send) -> Send:
    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return sent
