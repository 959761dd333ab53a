"""The page for people: the one that a web export has too, with a classifier that asks this server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from convmixer.web import SHARED, page_file

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_OWN = "classify.js"
# Nothing of other hosts is loaded, whatever files and classes are called; pictures are drawn from memory.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_routes() -> list[Route]:
    """A route per file, and / for the page itself."""
    contents = {name: page_file(name) for name in SHARED} | {_OWN: files(__package__).joinpath(_OWN).read_bytes()}
    return [Route("/", _handing_out("index.html", contents["index.html"]))] + [
        Route(f"/{name}", _handing_out(name, content)) for name, content in contents.items()
    ]


def _handing_out(name: str, content: bytes) -> Callable[[Request], Awaitable[Response]]:
    kind = _TYPES[name.rpartition(".")[2]]

    async def hand_out(request: Request) -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return hand_out
