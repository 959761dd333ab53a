"""What runs where a backend fails: its own fallback, then plain eager; one that was asked for keeps its kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

from torch import Tensor, nn

from convmixer.backends.autotune.benchmark import reason
from convmixer.backends.autotune.trial import out_of_memory, release
from convmixer.backends.registry import Backend, find_backend
from convmixer.backends.workload import Workload
from convmixer.errors import RUN_FAILED, UserError
from convmixer.model import ConvMixer

LEAVE_OUT = "leave the option out to run the fastest backend that does work"
Failed = Callable[[str | None], str | None]


class Attempts:
    """The backends that are tried one after the other; `backend` is the one that is tried now.

    The first of `backends` is plain eager, the last resort, unless the `backend` was asked for by name (`is_required`):
    then only those of its kind are tried. `subject` begins the line that reports each step.
    """

    def __init__(
        self,
        backend: Backend,
        backends: Sequence[Backend],
        workload: Workload,
        say: Callable[[str], None],
        *,
        is_required: bool,
        subject: str,
    ) -> None:
        self.backend, self.workload = backend, workload
        self._backends, self._say, self._is_required, self._subject = backends, say, is_required, subject

    def fails(self, why: str) -> None:
        """Go on to the next backend, and say so. Raises UserError (exit 1) where there is none."""
        failed, following = f"{self.backend.full_name} failed ({why})", self._following()
        if following is None:
            self._refuse(failed)
        self.backend = following
        self._say(f"{self._subject}: {failed}; running {'eager' if following.kind == 'eager' else following.full_name}")

    def _following(self) -> Backend | None:
        if self.backend.fallback is not None:
            plan = f" [{self.backend.plan}]" if self.backend.plan else ""
            found = find_backend(self.backend.fallback + plan, self._backends, self.workload)
            if found is not None:
                return found
        return None if self._is_required or self.backend.kind == "eager" else self._backends[0]

    def _refuse(self, failed: str) -> NoReturn:
        advice = f"; {LEAVE_OUT}" if self._is_required else ""
        raise UserError(f"--{self._subject}: {failed}{advice}", exit_code=RUN_FAILED) from None


def build_tried(
    attempts: Attempts, model: ConvMixer, attempt: Callable[[nn.Module], None], agree: Failed = lambda why: why
) -> nn.Module:
    """The network of the first backend that can be built and on which `attempt` raises nothing; eager is not tried.

    `agree` makes one answer of what failed in each process (None: nothing), so that all run the same backend.
    Raises UserError where none is left, and what torch raises of too little memory, for which no backend is to blame.
    """
    while attempts.backend.kind != "eager":
        network, why = None, None
        try:
            network = attempts.backend.network(model, attempts.workload)
            attempt(network)
        except Exception as error:  # whatever a compiler or a library raises, another backend can run the workload
            if out_of_memory(error) or isinstance(error, UserError):
                raise
            why = reason(error)
        why = agree(why)
        if network is not None and why is None:
            return network
        del network
        release(attempts.workload.device)
        attempts.fails(why or "not built")
    return attempts.backend.network(model, attempts.workload)


class WithFallback(nn.Module):
    """Calls a backend's network; where that cannot be built, or its first call fails, the next one's from then on.

    `catch_out_of_memory`: that too is taken for a failure.
    """

    def __init__(self, attempts: Attempts, model: ConvMixer, *, catch_out_of_memory: bool = False) -> None:
        super().__init__()
        self.model, self._attempts, self._catch_out_of_memory = model, attempts, catch_out_of_memory
        self.network, self._proven = self._built(), False

    @property
    def backend(self) -> Backend:
        """The one that runs now."""
        return self._attempts.backend

    def forward(self, images: Tensor) -> Tensor:
        while not self._proven:
            try:
                logits = _logits(self.network, images)
            except Exception as error:  # whatever a compiler or a library raises, another backend can run the workload
                if self.backend.kind == "eager" or (out_of_memory(error) and not self._catch_out_of_memory):
                    raise
                why = reason(error)
            else:
                self._proven = True
                return logits
            del self.network
            release(self._attempts.workload.device)
            self._attempts.fails(why)
            self.network = self._built()
        return _logits(self.network, images)

    def _built(self) -> nn.Module:
        while self.backend.kind != "eager":
            try:
                return self.backend.network(self.model, self._attempts.workload)
            except Exception as error:
                why = reason(error)
            self._attempts.fails(why)
        return self.backend.network(self.model, self._attempts.workload)


def _logits(network: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = network(images)
    return logits
