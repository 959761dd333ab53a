"""Bytes of files: of one on a disk, or by fsspec of what lies at an address such as https:// or s3://."""

from __future__ import annotations

import glob
import os
import stat
from typing import Any
from urllib.parse import unquote

from convmixer.data.limits import BadImage
from convmixer.data.retrying import patiently
from convmixer.errors import RUN_FAILED, UserError, first_line

REQUEST_SECONDS = 60.0


def is_remote(location: str) -> bool:
    return "://" in location


def joined(folder: str | None, name: str) -> str:
    """`name` below `folder`, itself where it is an address or an absolute path; local ones are made absolute."""
    if is_remote(name) or os.path.isabs(name):
        return name
    if folder is not None and is_remote(folder):
        return folder.rstrip("/") + "/" + name
    return os.path.normpath(os.path.join(os.path.abspath(folder or "."), name))


def parent(location: str) -> str:
    return location.rpartition("/")[0]


def base_name(location: str) -> str:
    return location.rpartition("/")[2]


def read_range(location: str, start: int, stop: int) -> bytes:
    """Exactly the bytes `start` to `stop`.

    Raises OSError for a local file that cannot be read and BadImage where it ends before; UserError (exit 1) for an
    address that does not give them, after some attempts.
    """
    if not is_remote(location):
        handle = os.open(location, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = _pread(handle, start, stop)
        finally:
            os.close(handle)
        if len(content) != stop - start:
            raise BadImage("its shard ends before it")
        return content

    def ask() -> bytes:
        content: bytes = _filesystem(location).cat_file(location, start=start, end=stop)
        return content

    content = patiently(location, ask)
    if len(content) == stop - start:
        return content
    raise UserError(
        f"{location}: gave {len(content)} bytes where {stop - start} were asked for (bytes {start} to {stop})\n"
        "either it has changed, or the server cannot give a part of a file (HTTP range requests)",
        exit_code=RUN_FAILED,
    )


def read_whole(location: str, limit: int) -> bytes | None:
    """A whole file of at most `limit` bytes; None where there is none. Raises UserError for a larger one."""
    found = about(location)
    if found is None:
        return None
    if found[0] > limit:
        raise UserError(f"{location}: has {found[0]} bytes, more than the limit of {limit}", exit_code=RUN_FAILED)
    try:
        return read_range(location, 0, found[0])
    except OSError as error:
        raise UserError(f"{location}: {error.strerror}", exit_code=RUN_FAILED) from error


def download(location: str, limit: int) -> bytes:
    """The content of an address, of at most `limit` bytes, asked for in one piece.

    Raises UserError (exit 1) where it does not come after some attempts, or is larger.
    """

    def ask() -> bytes:
        with open_file(location) as file:
            content: bytes = file.read(limit + 1)
        return content

    try:
        content = patiently(location, ask, again=3)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{location}: there is no such file", exit_code=RUN_FAILED) from None
    if len(content) > limit:
        raise UserError(f"{location}: larger than {limit >> 20} MiB", exit_code=RUN_FAILED)
    return content


def put(location: str, content: bytes) -> None:
    """Write a file at an address, whole or not at all. Raises UserError (exit 1) where it is not taken."""
    patiently(location, lambda: _filesystem(location).pipe_file(location, content), doing="written")


def check_address(location: str) -> None:
    """Raises UserError for an address that nothing here can read from, whatever lies there."""
    _filesystem(location)


def open_file(location: str) -> Any:
    """A file to read bytes from, on a disk or at an address."""
    return _filesystem(location).open(location, "rb") if is_remote(location) else open(location, "rb")


def about(location: str) -> tuple[int, str] | None:
    """Size in bytes, and what changes when the content does (time or ETag); None where there is no such file."""
    if not is_remote(location):
        try:
            found = os.stat(location)
        except OSError:
            return None
        return (found.st_size, str(found.st_mtime_ns)) if stat.S_ISREG(found.st_mode) else None
    try:
        info: dict[str, Any] = patiently(location, lambda: _filesystem(location).info(location))
    except FileNotFoundError:
        return None
    if info.get("type") == "directory":
        return None
    if not isinstance(info.get("size"), int):
        raise UserError(f"{location}: the server does not say how large it is", exit_code=RUN_FAILED)
    marks = ("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "updated", "md5Hash", "oid")
    return info["size"], str(next((info[mark] for mark in marks if info.get(mark)), ""))


def names_in_folder(folder: str) -> list[str]:
    """Names of what lies in a folder, sorted; empty where there is none."""
    if not is_remote(folder):
        try:
            return sorted(os.listdir(folder))
        except OSError:
            return []
    try:
        found = patiently(folder, lambda: _filesystem(folder).ls(folder.rstrip("/") + "/", detail=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted({unquote(base_name(str(each).rstrip("/"))) for each in found})


def files_at(folder: str, recursive: bool) -> list[str]:
    """Addresses of the files in a folder at an address, sorted; `recursive`: and below it. Raises UserError."""

    def ask() -> list[str]:
        files = _filesystem(folder)
        found = files.find(folder.rstrip("/") + "/", maxdepth=None if recursive else 1)
        return list(map(files.unstrip_protocol, found))

    try:
        return sorted(patiently(folder, ask))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder}: there is no such folder") from None


def matching(pattern: str) -> list[str]:
    """Locations that a pattern with `*` stands for, sorted."""
    if not is_remote(pattern):
        return sorted(glob.glob(pattern))
    try:
        found = patiently(pattern, lambda: _filesystem(pattern).glob(pattern))
    except FileNotFoundError:
        return []
    protocol = pattern.partition("://")[0]
    return sorted(each if is_remote(each) else f"{protocol}://{each}" for each in map(str, found))


def _pread(handle: int, start: int, stop: int) -> bytes:
    content = os.pread(handle, stop - start, start)
    while len(content) < stop - start:  # a read of more than 2 GiB, or one that a signal cut short
        more = os.pread(handle, stop - start - len(content), start + len(content))
        if not more:
            break
        content += more
    return content


def _filesystem(location: str) -> Any:
    """fsspec's; it keeps one per process and options, so that a forked process gets one of its own."""
    protocol = location.partition("://")[0]
    try:
        import fsspec

        options = {}
        if protocol in ("http", "https"):
            import aiohttp

            options = {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=REQUEST_SECONDS)}}
        # What a listing said earlier may not be so any more.
        return fsspec.filesystem(protocol, use_listings_cache=False, **options)
    except ImportError as error:
        raise UserError(
            f"{location}: {first_line(error)}\npip install 'convmixer[remote]' reads http:// and https://; "
            "s3:// takes s3fs, gs:// gcsfs, hf:// huggingface_hub"
        ) from None
    except ValueError as error:
        raise UserError(f"{location}: {first_line(error)}") from None
