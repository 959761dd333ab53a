"""A server in a process of its own, as a user starts it, and what clients send to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.project import project_environment


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    address: str
    port: int

    def ask(self, path: str, body: bytes | None = None, method: str | None = None, **headers: str) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, named)
            found = connection.getresponse()
            return Answer(found.status, dict(found.getheaders()), found.read())
        finally:
            connection.close()

    def form(self, path: str, **files: bytes) -> Answer:
        """A form of files, as a browser or curl sends it."""
        parts = [
            f'--frontier\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n\r\n'.encode()
            + content
            + b"\r\n"
            for name, content in files.items()
        ]
        body = b"".join(parts) + b"--frontier--\r\n"
        return self.ask(path, body, Content_Type="multipart/form-data; boundary=frontier")

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Exit code after a signal, and what stood on stderr."""
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


@contextmanager
def serving(*words: object, python: Path | None = None, **environment: str) -> Iterator[Served]:
    """`convmixer serve WORDS` at a free port; ended by SIGTERM where it is still running.

    `python`: of an environment that has the package itself.
    """
    own = project_environment(**{"OMP_NUM_THREADS": "1", **environment})
    if python is not None:
        del own["PYTHONPATH"]
    process = subprocess.Popen(
        [str(python or sys.executable), "-m", "convmixer", "serve", "--port=0", *map(str, words)],
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    if not address:
        _, err = process.communicate(timeout=60)
        raise AssertionError(f"exit code {process.returncode}: {err}")
    served = Served(process, address, urlsplit(address).port or 0)
    try:
        yield served
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def wait_until(happens: Any, seconds: float = 30) -> None:
    """Until a condition holds. Raises AssertionError where it does not in time."""
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """Processes that a process started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def resident_mb(pid: int) -> float:
    """MB of memory that a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
