"""The evaluation inside a run: the averaged weights where there are any, on all processes, to one exact score."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext, suppress

from convmixer.backends.autotune.choose import evaluation_network
from convmixer.backends.autotune.trial import release
from convmixer.backends.registry import AS_TRAINED
from convmixer.backends.torch_runtime import TorchRuntime
from convmixer.evaluation import check_any_readable, evaluate, name_unreadable
from convmixer.machine import workers
from convmixer.metrics.score import Score
from convmixer.terminal.progress import Progress
from convmixer.training.backend_choice import evaluation_workload
from convmixer.training.checkpointing.state import TrainState
from convmixer.training.resolved_run import ResolvedRun
from convmixer.training.signals import Interrupted

logger = logging.getLogger(__name__)

MAX_NAMED = 5  # of the images that cannot be read


class Evaluator:
    """Called with a question, whether to leave, it gives the score of the state's weights on the evaluation split."""

    def __init__(self, run: ResolvedRun, state: TrainState) -> None:
        self.run, self.state, self.workload = run, state, evaluation_workload(run)
        self._named: set[int] = set()
        self._say = logger.info if run.processes.is_first else lambda _: None

    def __call__(self, interrupted: Callable[[], bool]) -> Score:
        """The score over all processes. Raises Interrupted, on all, soon after `interrupted()` is true on one.

        Images that cannot be read are named the first time. Raises UserError (exit 1) where none can be read.
        """
        state, processes, data, config = self.state, self.run.processes, self.run.data, self.run.config
        val = data.val
        with (
            nullcontext() if state.ema is None else state.ema.applied(state.model),
            Progress(len(val), "evaluate", enabled=processes.is_first, plain_lines=False) as progress,
        ):
            # DDP keeps the first process's BatchNorm statistics; the average has its own on each.
            processes.copy_from_first(list(state.model.buffers()))
            # By the weights of now, and given up when they change: a copy of them, or a graph's memory, is not kept.
            network = evaluation_network(
                state.evaluation_backend or AS_TRAINED.name, state.model, self.workload, self._say
            )

            def count(images: int) -> None:
                progress.add(images * processes.count)
                if interrupted():
                    raise Interrupted

            score: Score | None = None
            with suppress(Interrupted):
                score = evaluate(
                    TorchRuntime(network, data.preprocessing, self.workload.device, self.run.precision.autocast),
                    val,
                    data.preprocessing,
                    batch_size=config.batch_size,
                    threads=workers(config.num_parallel_workers),
                    part=processes.part,
                    on_batch=count,
                    max_pixels=config.max_pixels,
                )
        backend = network.backend.full_name
        del network
        release(self.workload.device)
        parts, backends = zip(*processes.gather((score, backend)), strict=True)
        # Where it failed on one of them, all take another one from the next evaluation on.
        state.evaluation_backend = backends[0] if len(set(backends)) == 1 else AS_TRAINED.name
        if None in parts:
            raise Interrupted
        total = Score.merged(parts)
        check_any_readable(total, val)
        new = [(index, reason) for index, reason in total.bad if index not in self._named]
        self._named.update(index for index, _ in new)
        if processes.is_first:
            name_unreadable(new, total, val, MAX_NAMED)
        return total
