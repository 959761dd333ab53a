"""The images of a request, within bounds of size, time and kind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

MAX_FILES = 256
# What is read of a refused request, and for how long, and thrown away.
DRAINED, DRAIN_SECONDS = 64 * 2**20, 2.0
HELD = 512 * 2**20  # bytes of all requests that are being answered, a form's twice for a moment
_RAW = ("application/octet-stream", "image/")


class Refused(Exception):
    """A request that is not answered: `status` of HTTP, and a reason for who sent it.

    `ends`: the connection too, as what is left of the body would be taken for the next request.
    """

    def __init__(self, status: int, reason: str, *, ends: bool = False) -> None:
        super().__init__(reason)
        self.status, self.reason, self.ends = status, reason, ends


@dataclass(frozen=True)
class Upload:
    """An image as it was sent: the name that the client gave it, and its bytes."""

    name: str
    content: bytes


@dataclass
class _Counted:
    """Bytes of one request that are in memory."""

    bytes: int = 0


class Uploads:
    """Reads requests of at most `max_bytes` that arrive within `seconds`, and holds HELD bytes of them at most."""

    def __init__(self, max_bytes: int, seconds: float) -> None:
        self.max_bytes, self.seconds = max_bytes, seconds
        self._held, self._limit = 0, max(HELD, 2 * max_bytes)

    @contextlib.asynccontextmanager
    async def of(self, request: Request) -> AsyncGenerator[list[Upload], None]:
        """The images of a request, files of a form or one image as its body; within this context they are in memory.

        Raises Refused: 400 for a body that is malformed or ends early, 408 for one that comes too slowly, 413 for one
        that is too large, 415 for another type, 503 where too much is held already.
        """
        counted = _Counted()
        try:
            yield await self._read(request, counted)
        except Refused as refused:
            if refused.ends:
                await self._drain(request)
            raise
        finally:
            self._held -= counted.bytes

    async def _drain(self, request: Request) -> None:
        """Let a client that is still sending come to an end, or it would not see the answer."""
        left = DRAINED
        with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError):
            async with asyncio.timeout(DRAIN_SECONDS):
                async for part in request.stream():
                    left -= len(part)
                    if left < 0:
                        break

    async def _read(self, request: Request, counted: _Counted) -> list[Upload]:
        kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
        is_form = kind == "multipart/form-data"
        if not is_form and not kind.startswith(_RAW):
            raise Refused(415, f"{kind} is not read; send the image as the body, or files as multipart/form-data")
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self.max_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(self.seconds):
                found = await (self._form if is_form else self._body)(request, counted)
        except TimeoutError:
            raise Refused(408, f"the request did not arrive within {self.seconds:g} seconds", ends=True) from None
        except ClientDisconnect:
            raise Refused(400, "the request ended early") from None
        if not found:
            raise Refused(400, "no image in the request")
        return found

    async def _body(self, request: Request, counted: _Counted) -> list[Upload]:
        content = b"".join([part async for part in self._bounded(request, counted)])
        return [Upload("image", content)] if content else []

    async def _form(self, request: Request, counted: _Counted) -> list[Upload]:
        parser = MultiPartParser(
            request.headers, self._bounded(request, counted), max_files=MAX_FILES, max_fields=MAX_FILES
        )
        parser.spool_max_size = self.max_bytes  # in memory: the bound is on the whole request
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise Refused(400, f"a malformed form: {error.message}") from None
        except (KeyError, UnicodeDecodeError, LookupError):
            raise Refused(400, "a malformed form: its header names no boundary, or no known character set") from None
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        found = [Upload(file.filename or "image", await file.read()) for file in files]
        await form.close()
        return found

    async def _bounded(self, request: Request, counted: _Counted) -> AsyncGenerator[bytes, None]:
        async for part in request.stream():
            counted.bytes += len(part)
            self._held += len(part)
            if counted.bytes > self.max_bytes:
                raise self._too_large()
            if self._held > self._limit:
                raise Refused(503, "too much is being sent at the same time; try again in a moment", ends=True)
            yield part

    def _too_large(self) -> Refused:
        return Refused(413, f"the request is larger than {self.max_bytes / 1e6:g} MB", ends=True)
