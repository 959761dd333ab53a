"""Processes of one run: rank and number as torchrun tells them, and the few collectives that the program needs."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist

from convmixer.errors import RUN_FAILED, UserError

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
        """Those of torchrun's environment variables; a single process without them."""
        read = {name: int(os.environ.get(name, default)) for name, default in _VARIABLES.items()}
        return cls(read["RANK"], read["LOCAL_RANK"], read["WORLD_SIZE"])

    def sum(self, values: list[float]) -> list[float]:
        """Sum of each value over all processes, in double precision."""
        if self.count == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        summed: list[float] = tensor.tolist()
        return summed

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

    def on_first(self, job: Callable[[], _Result]) -> _Result | None:
        """What the job gives on the first process, None on the others. Its UserError is raised on all."""
        result, error = None, None
        if self.is_first:
            try:
                result = job()
            except UserError as raised:
                error = raised
        error = self.from_first(error)
        if error is not None:
            raise error
        return result

    def copy_from_first(self, tensors: list[torch.Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


_VARIABLES = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}


# Set by our launcher: the time that names the run, so that a process started again finds its own run.
RUN_TIME = "CONVMIXER_RUN_TIME"


def run_time() -> str | None:
    """The time that our launcher gave the run, None without it."""
    return os.environ.get(RUN_TIME)


def restarted_run() -> str | None:
    """The time in the name of the run that torchrun has started again, None in a process of a first start."""
    return run_time() if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0 else None


@contextmanager
def process_group(processes: Processes, device: torch.device, timeout_seconds: float) -> Iterator[None]:
    """Connect the processes: NCCL for what lies on GPUs, Gloo for what lies on the CPU; nothing to do for one."""
    if processes.count == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = {"cuda": "cpu:gloo,cuda:nccl", "npu": "cpu:gloo,npu:hccl"}.get(device.type, "gloo")
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise UserError(f"the processes of the run cannot reach each other: {reason}", exit_code=RUN_FAILED) from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End this process of several, whose work is done and saved, with an exit code.

    Without Python's own teardown: threads of the process group may then still be giving their objects back, and the
    process dies of SIGABRT ("terminate called without an active exception", seen once in some thirty runs), for which
    the agent would take a finished run for a failed one.
    """
    for child in multiprocessing.active_children():
        child.terminate()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
