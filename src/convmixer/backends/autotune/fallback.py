"""What runs where a way fails: the way that it names, then plain eager; one that was asked for keeps its kind."""

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

LEAVE_OUT = "leave the option out to run the fastest way that does work"
Failed = Callable[[str | None], str | None]


class Attempts:
    """The ways that are tried one after the other; `way` is the one that is tried now.

    The first of `ways` is plain eager, the last resort but where the `way` was `asked` for by name: then only those of
    its kind are tried. `subject` begins the line that each step is said in.
    """

    def __init__(
        self,
        backend: Backend,
        backends: Sequence[Backend],
        workload: Workload,
        say: Callable[[str], None],
        *,
        is_explicit: bool,
        subject: str,
    ) -> None:
        self.backend, self.workload = backend, workload
        self._backends, self._say, self._asked, self._subject = backends, say, is_explicit, subject

    def fails(self, why: str) -> None:
        """Go on to the next way, and say so. Raises UserError (exit 1) where there is none."""
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
        return None if self._asked or self.backend.kind == "eager" else self._backends[0]

    def _refuse(self, failed: str) -> NoReturn:
        advice = f"; {LEAVE_OUT}" if self._asked else ""
        raise UserError(f"--{self._subject}: {failed}{advice}", exit_code=RUN_FAILED) from None


def build_tried(
    attempts: Attempts, model: ConvMixer, attempt: Callable[[nn.Module], None], agree: Failed = lambda why: why
) -> nn.Module:
    """The network of the first way that can be built and on which `attempt` raises nothing; plain eager is not tried.

    `agree` makes one answer of what failed in each process (None: nothing), so that all run the same way. Raises
    UserError where no way is left, and what torch raises of too little memory, for which no way is to blame.
    """
    while attempts.backend.kind != "eager":
        network, why = None, None
        try:
            network = attempts.backend.network(model, attempts.workload)
            attempt(network)
        except Exception as error:  # whatever a compiler or a library raises, the job can run another way
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
    """Calls the network of a way; where that cannot be built, or its first call fails, for good that of the next one.

    `spare`: out of memory is taken for a failure too.
    """

    def __init__(self, attempts: Attempts, model: ConvMixer, *, spare: bool = False) -> None:
        super().__init__()
        self.model, self._attempts, self._spare = model, attempts, spare
        self.network, self._proven = self._built(), False

    @property
    def backend(self) -> Backend:
        """The one that runs now."""
        return self._attempts.backend

    def forward(self, images: Tensor) -> Tensor:
        while not self._proven:
            try:
                logits = _logits(self.network, images)
            except Exception as error:  # whatever a compiler or a library raises, the job can run another way
                if self.backend.kind == "eager" or (out_of_memory(error) and not self._spare):
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
