"""The evaluation inside a run: the averaged weights where there are any, on all processes, to one exact score."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress

import torch

from convmixer.config.schema import Config
from convmixer.distributed import Processes
from convmixer.evaluate import check_any_readable, evaluate, name_unreadable
from convmixer.metrics import Score
from convmixer.progress import Progress
from convmixer.runtime.torch_runtime import TorchRuntime
from convmixer.train.data import TrainingData
from convmixer.train.precision import Precision
from convmixer.train.state import TrainState
from convmixer.train.stopping import Interrupted

MOST_NAMED = 5  # of the images that cannot be read


class Evaluation:
    """Called with a question, whether to leave, it gives the score of the state's weights on the evaluation split."""

    def __init__(
        self,
        config: Config,
        data: TrainingData,
        state: TrainState,
        precision: Precision,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self.config, self.data, self.state, self.processes = config, data, state, processes
        self._named: set[int] = set()
        self.runtime = TorchRuntime(state.model, data.preprocessing, device, precision.autocast)

    def __call__(self, interrupted: Callable[[], bool]) -> Score:
        """The score over all processes. Raises Interrupted, on all, soon after `interrupted()` is true on one.

        Images that cannot be read are named the first time. Raises UserError (exit 1) where none can be read.
        """
        state, processes, val = self.state, self.processes, self.data.val
        with (
            nullcontext() if state.ema is None else state.ema.applied(state.model),
            Progress(len(val), "evaluate", enabled=processes.is_first, plain_lines=False) as progress,
        ):
            # DDP keeps the first process's BatchNorm statistics; the average has its own on each.
            processes.copy_from_first(list(state.model.buffers()))

            def count(images: int) -> None:
                progress.add(images * processes.count)
                if interrupted():
                    raise Interrupted

            score: Score | None = None
            with suppress(Interrupted):
                score = evaluate(
                    self.runtime,
                    val,
                    self.data.preprocessing,
                    batch_size=self.config.batch_size,
                    threads=self.config.num_parallel_workers,
                    part=processes.part,
                    on_batch=count,
                    max_pixels=self.config.max_pixels,
                )
        parts = processes.gather(score)
        if None in parts:
            raise Interrupted
        total = Score.merged(parts)
        check_any_readable(total, val)
        new = [(index, reason) for index, reason in total.bad if index not in self._named]
        self._named.update(index for index, _ in new)
        if processes.is_first:
            name_unreadable(new, total, val, MOST_NAMED)
        return total
