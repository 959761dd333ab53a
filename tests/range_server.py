"""A web server on this machine that gives parts of files, and can be made to fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Behaviour:
    """`fails`: this many of the next requests for content get a 503; `ranges` False: whole files are sent, whatever is
    asked for; `dead_after`: requests for content after which every one fails. `asked`: (path, first byte, bytes)."""

    fails: int = 0
    ranges: bool = True
    dead_after: int | None = None
    asked: list[tuple[str, int, int]] = field(default_factory=list)


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, behaviour: Behaviour, **kwargs: Any) -> None:
        self.behaviour = behaviour
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            super().do_GET()
            return
        state, content = self.behaviour, path.read_bytes()
        if state.fails > 0 or (state.dead_after is not None and len(state.asked) >= state.dead_after):
            state.fails -= 1
            self.send_error(503)
            return
        start, stop, code = 0, len(content), 200
        wanted = self.headers.get("Range")
        if wanted and state.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop, code = int(first), int(last) + 1 if last else len(content), 206
        part = content[start:stop]
        state.asked.append((self.path, start, len(part)))
        self.send_response(code)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        if code == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def range_server(folder: Path) -> Iterator[tuple[str, Behaviour]]:
    """The address at which the files of `folder` are, and how the server behaves, which may be changed."""
    behaviour = Behaviour()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, behaviour=behaviour, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", behaviour
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
