"""One process writes a run: a file in the run's checkpoint folder names it, and beats while it lives.

Nothing but the creation, the renaming and the times of files is used, which hold on a network's disk too (flock does
not everywhere). Whether the holder lives is looked up at once where that can be done: in /proc, for a process of this
machine. For any other (another host, another container) the beat tells: a file that is not touched for STALE seconds,
by the file system's own clock, is that of a dead process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from convmixer.errors import RUN_FAILED, UserError

logger = logging.getLogger(__name__)

NAME = "run.lock"
HEARTBEAT, STALE = 10.0, 60.0
_TAKEOVER_SECONDS = 0.3  # of two that take over at once, the later to write has written by then


@dataclass(frozen=True)
class Holder:
    """A process: its host's name and id for people; `machine` and `start` tell it from all others that ever were."""

    host: str
    pid: int
    machine: str | None
    start: str | None
    token: str

    @classmethod
    def here(cls) -> Holder:
        return cls(socket.gethostname(), os.getpid(), _machine(), _started(os.getpid()), uuid.uuid4().hex)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def lives(self) -> bool | None:
        """Whether the process lives; None where that cannot be known from here."""
        if self.machine is None or self.machine != _machine():
            return None
        start = _started(self.pid)
        if start is None:
            # Another user's process may be hidden in /proc.
            try:
                os.kill(self.pid, 0)
            except PermissionError:
                return True
            except (OSError, OverflowError):
                pass
            return False
        return start == self.start


class RunLock:
    """Held from its creation to `release`. Raises UserError where another process holds it (exit 2) or none can (1)."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.holder = Holder.here()
        try:
            if not self._create():
                self._take_over()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}", exit_code=RUN_FAILED) from None
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="run lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises UserError (exit 1) where another process has taken the run over, as after a long sleep of this one."""
        try:
            found = _read(self.path)
            if found is None and not self.path.exists():
                self._create()  # it was deleted, perhaps with the whole folder
                return
        except OSError:
            return  # what is written next will say what is wrong with the disk
        if found is not None and found.token != self.holder.token:
            raise UserError(f"{self.path.parent}: {found} has taken the run over; this one ends", exit_code=RUN_FAILED)

    def release(self) -> None:
        """Let others take the run. May be called again."""
        if self._released.is_set():
            return
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            found = _read(self.path)
            if found is not None and found.token == self.holder.token:
                self.path.unlink()

    def _create(self) -> bool:
        """Make the file, unless there is one."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("x", encoding="utf-8")
        except FileExistsError:
            return False
        try:
            with file:
                file.write(self._content())
        except OSError:
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise
        return True

    def _take_over(self) -> None:
        other = _read(self.path)
        lives = None if other is None else other.lives()
        if lives is None:
            lives = self._beats(other)
        if lives and not (other is not None and self._is_own(other)):
            raise self._refusal(other)
        if other is not None and not lives:
            logger.warning(f"{self.path.parent}: {other} is gone; its run is taken over")
        temporary = self.path.with_name(f".{NAME}.{self.holder.token}.tmp")
        temporary.write_text(self._content(), encoding="utf-8")
        temporary.replace(self.path)
        time.sleep(_TAKEOVER_SECONDS)
        now = _read(self.path)
        if now is not None and now.token != self.holder.token:
            raise self._refusal(now)

    def _is_own(self, other: Holder) -> bool:
        return (other.machine, other.pid, other.start) == (self.holder.machine, self.holder.pid, self.holder.start)

    def _refusal(self, other: Holder | None) -> UserError:
        folder, who = self.path.parent, other or "another process"
        return UserError(
            f"{folder}: {who} is at work on this run; wait for it or stop it\n"
            f"where it is surely gone, delete {self.path}; without --resume a new run starts"
        )

    def _beats(self, other: Holder | None) -> bool:
        """Whether the file is touched, waiting until it has not been for STALE seconds."""
        first, start = _modified(self.path), time.monotonic()
        if first is None:
            return False
        # A time that lies in the future, after a clock was set back, must not make it longer.
        patience = min(STALE, STALE - (self._clock() - first))
        if patience > 0:
            who = other or "another process"
            logger.info(
                f"{self.path.parent}: waiting up to {patience:.0f} s to see whether {who} is at work on this run"
            )
        while time.monotonic() - start < patience:
            time.sleep(min(1.0, HEARTBEAT / 2))
            now = _modified(self.path)
            if now != first:
                return now is not None
        return False

    def _clock(self) -> float:
        """The time by the clock of the file system that the lock lies on."""
        probe = self.path.with_name(f".{NAME}.{self.holder.token}.tmp")
        try:
            probe.touch()
            return probe.stat().st_mtime
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()

    def _content(self) -> str:
        return json.dumps(asdict(self.holder))

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT):
            with contextlib.suppress(OSError):
                found = _read(self.path)
                if found is not None and found.token == self.holder.token:
                    os.utime(self.path)


def _read(path: Path) -> Holder | None:
    """Who holds a lock; None for a file that is gone or says nothing, as one that is being written."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        holder = Holder(**values)
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        return None
    texts = (holder.host, holder.token, holder.machine or "", holder.start or "")
    whole = isinstance(holder.pid, int) and holder.pid > 0 and all(isinstance(text, str) for text in texts)
    return holder if whole else None


def _modified(path: Path) -> float | None:
    """The time of the last beat, None without a file. Opened: a network's disk may answer an older time unopened."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None


def _machine() -> str | None:
    """This boot of this machine and this space of process ids, which a container has for itself; None off Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process of this machine was started, in clock ticks after boot: a recycled id has another time."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    # The first field after the name is the state; a zombie has ended and only its parent has not heard of it.
    return None if fields[0] in "ZX" else fields[19]
