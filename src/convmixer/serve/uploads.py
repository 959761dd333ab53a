"""The images of a request, within bounds of size, time and kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

MAX_FILES = 256
_RAW = ("application/octet-stream", "image/")


class Refused(Exception):
    """A request that is not answered: `status` of HTTP, and a reason for who sent it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Upload:
    """An image as it was sent: the name that the client gave it, and its bytes."""

    name: str
    content: bytes


class Uploads:
    """Reads requests of at most `max_bytes` that arrive within `seconds`."""

    def __init__(self, max_bytes: int, seconds: float) -> None:
        self.max_bytes, self.seconds = max_bytes, seconds

    async def read(self, request: Request) -> list[Upload]:
        """The images of a request: files of a form, or one image as its body.

        Raises Refused: 400 for a body that is malformed or ends early, 408 for one that comes too slowly, 413 for one
        that is too large, 415 for another type.
        """
        kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
        is_form = kind == "multipart/form-data"
        if not is_form and not kind.startswith(_RAW):
            raise Refused(415, f"{kind} is not read; send the image as the body, or files as multipart/form-data")
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self.max_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(self.seconds):
                found = await (self._form(request) if is_form else self._body(request))
        except TimeoutError:
            raise Refused(408, f"the request did not arrive within {self.seconds:g} seconds") from None
        except ClientDisconnect:
            raise Refused(400, "the request ended early") from None
        if not found:
            raise Refused(400, "no image in the request")
        return found

    async def _body(self, request: Request) -> list[Upload]:
        content = b"".join([part async for part in self._bounded(request)])
        return [Upload("image", content)] if content else []

    async def _form(self, request: Request) -> list[Upload]:
        parser = MultiPartParser(request.headers, self._bounded(request), max_files=MAX_FILES, max_fields=MAX_FILES)
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

    async def _bounded(self, request: Request) -> AsyncGenerator[bytes, None]:
        count = 0
        async for part in request.stream():
            count += len(part)
            if count > self.max_bytes:
                raise self._too_large()
            yield part

    def _too_large(self) -> Refused:
        return Refused(413, f"the request is larger than {self.max_bytes / 1e6:g} MB")
