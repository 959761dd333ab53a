"""The routes of a server: what each takes and answers, and how it is guarded."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from convmixer.config.serve import ServeOptions
from convmixer.serve.batching import Closed
from convmixer.serve.classifier import Classifier
from convmixer.serve.interface import interface
from convmixer.serve.observed import Observed
from convmixer.serve.page import page_routes
from convmixer.serve.uploads import Refused, Uploads

logger = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Server:
    """The handlers of one process. `is_ready`: from when the model is warm until the server stops."""

    def __init__(self, classifier: Classifier, options: ServeOptions, observed: Observed, token: str | None) -> None:
        self.classifier, self.options, self.observed, self.token = classifier, options, observed, token
        self.uploads = Uploads(int(options.max_mb * 1e6), options.timeout)
        self.is_ready = False

    def app(self) -> Starlette:
        """The application, as an ASGI server runs it."""
        routes = [
            Route("/predict", self._guarded(self.predict), methods=["POST"]),
            Route("/explain", self._guarded(self.explain), methods=["POST"]),
            Route("/model", self._guarded(self.about)),
            Route("/metrics", self._guarded(self.metrics)),
            Route("/health", self._counted(self.health)),
            Route("/ready", self._counted(self.ready)),
            Route("/openapi.json", self._counted(self.openapi)),
            *page_routes(),
        ]
        # A page of elsewhere whose name is made to mean this machine must not reach a server for this machine alone.
        loopback = [Middleware(TrustedHostMiddleware, allowed_hosts=[*_LOOPBACK, "[::1]"], www_redirect=False)]
        return Starlette(
            routes=routes,
            lifespan=self._lifespan,
            middleware=loopback if self.options.host in _LOOPBACK else [],
            exception_handlers={404: _not_found, 405: _not_allowed, 500: _failed},
        )

    async def predict(self, request: Request) -> Response:
        """POST /predict: the answers to the images of a request, in their order."""
        topk = self._number(request, "topk", 1)
        async with self.uploads.of(request) as uploads:
            found = await self.classifier.predict(uploads, topk)
        failed = [each for each in found if "error" in each]
        if len(failed) == len(found):
            return _error(failed[0]["status"], failed[0]["error"])
        return JSONResponse({"predictions": found})

    async def explain(self, request: Request) -> Response:
        """POST /explain: a picture of what spoke for the answer to one image, or for the class `index`."""
        index = self._number(request, "index", 0)
        async with self.uploads.of(request) as uploads:
            if len(uploads) != 1:
                raise Refused(400, f"one image is explained, not {len(uploads)}")
            picture = await self.classifier.explain(uploads[0], index)
        return Response(picture, media_type="image/png")

    async def about(self, request: Request) -> Response:
        """GET /model: what clients may know of it."""
        return JSONResponse(self.classifier.about())

    async def metrics(self, request: Request) -> Response:
        """GET /metrics: what Prometheus reads."""
        self.observed.waiting.set(self.classifier.batcher.on_their_way)
        return Response(self.observed.text(), media_type="text/plain; version=0.0.4")

    async def health(self, request: Request) -> Response:
        """GET /health: 200 while the process can answer at all."""
        alive = self.classifier.batcher.is_alive
        return JSONResponse({"status": "ok" if alive else "dead"}, 200 if alive else 500)

    async def ready(self, request: Request) -> Response:
        """GET /ready: 200 while requests should come here."""
        return JSONResponse({"status": "ready" if self.is_ready else "not ready"}, 200 if self.is_ready else 503)

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json: all of this, as programs read it."""
        return JSONResponse(interface(self.token is not None))

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.is_ready = True
        try:
            yield
        finally:
            self.is_ready = False
            self.classifier.close()

    def _guarded(self, handler: Handler) -> Handler:
        """For those who have the token, and not for pages of elsewhere, whose visitors do not know what they send."""

        async def guarded(request: Request) -> Response:
            if request.headers.get("sec-fetch-site") == "cross-site":
                raise Refused(403, "pages of other sites get no answers")
            if self.token is not None:
                scheme, _, given = request.headers.get("authorization", "").partition(" ")
                same = hmac.compare_digest(given.strip().encode(), self.token.encode())
                if scheme.lower() != "bearer" or not same:
                    raise Refused(401, "a token is needed: Authorization: Bearer TOKEN")
            return await handler(request)

        return self._counted(guarded)

    def _counted(self, handler: Handler) -> Handler:
        """Refusals become answers; each request is counted and logged, without what was in it."""

        async def counted(request: Request) -> Response:
            start = time.perf_counter()
            try:
                response = await handler(request)
            except Refused as refused:
                response = _error(refused.status, refused.reason, ends=refused.ends)
            except Closed:
                response = _error(503, "the server is stopping")
            except Exception:
                logger.exception(f"{request.method} {request.url.path} failed")
                response = _error(500, "the server failed; its log says how")
            seconds = time.perf_counter() - start
            path = request.url.path
            self.observed.requests.labels(path, str(response.status_code)).inc()
            self.observed.seconds.labels(path).observe(seconds)
            logger.debug(f"{request.method} {path} {response.status_code} {1e3 * seconds:.1f} ms")
            return response

        return counted

    @staticmethod
    def _number(request: Request, name: str, least: int) -> int | None:
        """A number behind the question mark. Raises Refused (400) for what is none."""
        text = request.query_params.get(name)
        if text is None:
            return None
        if not text.isdecimal() or not least <= int(text) < 2**31:
            raise Refused(400, f"{name}: a number from {least} on is wanted")
        return int(text)


def _error(status: int, reason: str, *, ends: bool = False) -> Response:
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}.get(status, {})
    return JSONResponse({"error": reason}, status, headers | ({"Connection": "close"} if ends else {}))


async def _not_found(request: Request, error: Exception) -> Response:
    return _error(404, "there is nothing here; /openapi.json says what there is")


async def _not_allowed(request: Request, error: Exception) -> Response:
    return _error(405, f"{request.method} is not answered here")


async def _failed(request: Request, error: Exception) -> Response:
    return _error(500, "the server failed; its log says how")
