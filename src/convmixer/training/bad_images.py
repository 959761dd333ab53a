"""Training images that cannot be read: named once, counted over all processes, and put up with to a limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from convmixer.distributed.processes import Processes
from convmixer.errors import RUN_FAILED, UserError
from convmixer.training.loading.train_batch import TrainBatch
from convmixer.training.resolved_run import ResolvedRun


class BadImages:
    """`name` gives that of an image by its index; more than `max_count` images end the run."""

    def __init__(self, name: Callable[[int], str], max_count: int, processes: Processes) -> None:
        self.name, self.max_count, self.processes = name, max_count, processes
        self._known: dict[int, str] = {}

    @classmethod
    def of(cls, run: ResolvedRun) -> BadImages:
        """Those of the run's training split of n images; index n and above are further draws, of the image modulo n."""
        train = run.data.train
        return cls(
            lambda index: train.name(index % len(train)), int(run.config.max_bad_fraction * len(train)), run.processes
        )

    def new_in(self, batches: Iterable[TrainBatch]) -> dict[int, str]:
        """Those of this process's batches that are not known yet: index and why."""
        return {index: why for batch in batches for index, why in batch.bad if index not in self._known}

    def add(self, new: Mapping[int, str]) -> list[str]:
        """Count the new ones of all processes, which call it together. Returns those of this one as `name: why`."""
        for part in self.processes.gather(new):
            self._known.update(part)
        return [f"{self.name(index)}: {why}" for index, why in new.items()]

    def check(self) -> None:
        """Raises UserError (exit 1) where there are too many."""
        if len(self._known) > self.max_count:
            index, why = next(iter(self._known.items()))
            raise UserError(
                f"{len(self._known)} training images cannot be read, the first {self.name(index)} ({why}); "
                "mend or remove them, or raise --max_bad_fraction",
                exit_code=RUN_FAILED,
            )
