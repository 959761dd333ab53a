"""Processes of one run: rank and number as torchrun sets them, and the few collectives that the program needs."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from convmixer.distributed.leaving import end_with_the_agent
from convmixer.errors import RUN_FAILED, UserError, first_line
from convmixer.signals import has_agent

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Processes:
    """This process among those of the run: global rank, rank on this machine, and how many there are."""

    rank: int = 0
    local_rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def part(self) -> tuple[int, int]:
        return self.rank, self.count

    @classmethod
    def from_environment(cls) -> Processes:
        """Those of torchrun's environment variables; a single process without them.

        Raises UserError where only some of them are set, or one has no sense.
        """
        count = _number("WORLD_SIZE", 1, 1)
        rank, local_rank = _number("RANK", 0, 0), _number("LOCAL_RANK", 0, 0)
        for name, value in {"RANK": rank, "LOCAL_RANK": local_rank}.items():
            if value >= count:
                raise UserError(f"{name}: is {value}, but WORLD_SIZE says {count} process(es); {_TOGETHER}")
        missing = [name for name in _VARIABLES if not os.environ.get(name)] if count > 1 else []
        if missing:
            raise UserError(f"WORLD_SIZE is {count}, but {', '.join(missing)} is not set; {_TOGETHER}")
        if count > 1 and not 0 < _number("MASTER_PORT", 0, 0) < 2**16:
            raise UserError(f"MASTER_PORT: {os.environ['MASTER_PORT']} is no port; {_TOGETHER}")
        return cls(rank, local_rank, count)

    def sum(self, values: list[float]) -> list[float]:
        """Sum of each value over all processes, in double precision."""
        if self.count == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        summed: list[float] = tensor.tolist()
        return summed

    def average(self, tensors: list[torch.Tensor]) -> None:
        """Overwrite tensors, on the device of the run, with their means over all processes."""
        for tensor in tensors if self.count > 1 else []:
            dist.all_reduce(tensor)
            tensor /= self.count

    def any(self, value: bool) -> bool:
        """True on all processes where it is true on one."""
        return value if self.count == 1 else self.sum([float(value)])[0] > 0

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in the order of their ranks."""
        if self.count == 1:
            return [value]
        out: list[Any] = [None] * self.count
        dist.all_gather_object(out, value)
        return out

    def from_first(self, value: Any) -> Any:
        """The first process's value, on all."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def on_first(self, function: Callable[[], _Result]) -> _Result | None:
        """What the function gives on the first process, None on the others. Its UserError is raised on all."""
        result, error = None, None
        if self.is_first:
            try:
                result = function()
            except UserError as raised:
                error = raised
        error = self.from_first(error)
        if error is not None:
            raise error
        return result

    def post(self, word: str) -> bool:
        """Post a word for all processes without waiting for any; True for the first that posts it.

        Without a store, or where the process that keeps it is gone: for the first of a machine where an agent started
        all of them, else for each.
        """
        with contextlib.suppress(RuntimeError):
            store = _store or self._agents_store()
            if store is not None:
                return bool(store.add(_key(word), 1) == 1)
        return self.local_rank == 0 or not has_agent()

    def _agents_store(self) -> Any:
        """The store before the processes are connected, where their agent keeps it; else None."""
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            return None
        return next(rendezvous("env://", self.rank, self.count, timeout=_STORE_TIMEOUT))[0]

    def is_posted(self, word: str) -> bool:
        """Whether a process posted the word; False where who keeps the words is gone, as the next collective finds."""
        with contextlib.suppress(RuntimeError):
            return _store is not None and bool(_store.check([_key(word)]))
        return False

    def copy_from_first(self, tensors: list[torch.Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_TOGETHER = f"torchrun sets {', '.join(_VARIABLES)} together: start it by torchrun or --device_num, or unset them"
_LOST_PEER = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed? ?out|socket", re.IGNORECASE)

_STORE_TIMEOUT = timedelta(seconds=10)

# Where the processes post words for each other: torch's store, by which they found each other.
_store: Any = None


def shared_store() -> Any:
    """The store by which the processes of the run found each other; None without several."""
    return _store


def _key(word: str) -> str:
    return f"convmixer/{word}"


def _number(name: str, default: int, minimum: int) -> int:
    """An environment variable that is a whole number."""
    text = os.environ.get(name) or str(default)
    if not (re.fullmatch("[0-9]{1,9}", text) and int(text) >= minimum):
        raise UserError(f"{name}: {text!r} is no whole number from {minimum} on; {_TOGETHER}")
    return int(text)


# Set by our launcher: the time that names the run, so that a process started again finds its own run.
RUN_TIME = "CONVMIXER_RUN_TIME"


def run_time() -> str | None:
    """The time that our launcher gave the run, None without it."""
    return os.environ.get(RUN_TIME)


def restarted_run() -> str | None:
    """The time in the name of the run that torchrun has started again, None in a process of a first start."""
    return run_time() if _number("TORCHELASTIC_RESTART_COUNT", 0, 0) > 0 else None


@contextmanager
def process_group(processes: Processes, device: torch.device, timeout_seconds: float) -> Iterator[None]:
    """Connect the processes: NCCL for what lies on GPUs, Gloo for what lies on the CPU; nothing to do for one.

    `device`: this process's own, and its current one (`choose_device`), which NCCL takes. After an error they are left
    connected: it is to be reported, and the process then to `leave`.
    """
    if processes.count == 1:
        yield
        return
    backend = {"cuda": "cpu:gloo,cuda:nccl", "npu": "cpu:gloo,npu:hccl"}.get(device.type, "gloo")
    timeout = timedelta(seconds=timeout_seconds)
    global _store
    try:
        _store, _, _ = next(rendezvous("env://", processes.rank, processes.count, timeout=timeout))
        dist.init_process_group(backend, store=_store, rank=processes.rank, world_size=processes.count, timeout=timeout)
    except RuntimeError as error:
        raise UserError(
            f"the processes of the run cannot reach each other: {first_line(error, 160)}", exit_code=RUN_FAILED
        ) from error
    end_with_the_agent(processes.local_rank, timeout_seconds)
    try:
        yield
    except RuntimeError as error:
        user_error = lost_peer(error)
        if user_error is None:
            raise
        raise user_error from error
    # Not where something failed: NCCL may wait for the processes that this one has left in a collective.
    dist.destroy_process_group()


def lost_peer(error: RuntimeError) -> UserError | None:
    """The UserError (exit 1) that a collective's error stands for, None for another error."""
    if not _LOST_PEER.search(str(error)):
        return None
    return UserError(f"another process of the run is gone or silent: {first_line(error, 160)}", exit_code=RUN_FAILED)
