"""`--batch_size auto`: the batch that the device's memory holds and that is worth it, by steps that are tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from convmixer import machine
from convmixer.backends.autotune.trial import out_of_memory, release
from convmixer.config.data import AUTO_BATCH
from convmixer.config.recipes import read_recipe
from convmixer.config.resolved import Resolved
from convmixer.config.schema import Config
from convmixer.distributed.processes import Processes, restarted_run
from convmixer.errors import RUN_FAILED, UserError
from convmixer.runs.folders import CONFIG, run_suffix
from convmixer.runs.saved import saved_options
from convmixer.training.memory_use import largest
from convmixer.training.resolved_run import ResolvedRun
from convmixer.training.trial import trial

ORIGIN = "measured for batch_size auto"
STEPS_PER_EPOCH = 8  # at least, so that an epoch is more than a few updates
_FIRST, _PRECISION = 16, 8
_SHARE = 0.9  # of a GPU's free memory; the rest is for what evaluation and fragments take
_SHARE_OF_CPU = 0.5  # of the machine's, which other programs use too
_GAIN = 1.05  # images per second that the double batch must be better by, on a CPU
_SECONDS = 0.5  # of each measurement there


def with_batch(
    resolved: Resolved[Config], assembled: Callable[[Resolved[Config]], ResolvedRun], say: Callable[[str], None]
) -> Resolved[Config]:
    """The options, with a number in place of `batch_size: auto`; `assembled` makes a run of options that have one.

    On a GPU the largest multiple of eight whose steps need at most nine tenths of its free memory. On a CPU the largest
    power of two whose steps need at most half of the free memory, and of these the first whose double trains fewer than
    5 % more images per second. Never so many that an epoch has fewer than eight steps, but at least 2. Of several
    processes the smallest of theirs; a run that goes on keeps what it has had. `say` gets a line on it.

    Raises UserError (exit 1) where not even two images fit.
    """
    config = resolved.options
    if config.batch_size != AUTO_BATCH:
        return resolved
    before = _of_the_run_before(config)
    if before is not None:
        say(f"batch_size auto: {before}, as the run has had it")
        return resolved.changed({"batch_size": before}, ORIGIN)

    def run_of(batch: int) -> ResolvedRun:
        # By itself: with BatchNorm over all processes a step waits for them, and each makes as many as it needs.
        return replace(assembled(resolved.changed({"batch_size": batch}, ORIGIN)), processes=Processes())

    smallest = assembled(resolved.changed({"batch_size": 2}, ORIGIN))
    processes, steps = smallest.processes, smallest.sampler
    most = max(steps.count // (STEPS_PER_EPOCH * processes.count * config.accumulate), 2)
    search = _Search(run_of, smallest.device, most)
    batch, why = search.on_gpu() if smallest.device.type == "cuda" else search.on_cpu()
    batch, why = min(processes.gather((batch, why)))
    if batch < 2:
        raise UserError(
            f"batch_size auto: not even two images of {smallest.data.train_size} pixels fit into memory; lower "
            "--image_size, take a smaller --arch, or use --recompute",
            exit_code=RUN_FAILED,
        )
    scaled = "scaled with it" if config.lr_scaling == "linear" else "not scaled with it (--lr_scaling linear does)"
    say(f"batch_size auto: {batch}; {why}; base_lr is {scaled}")
    return resolved.changed({"batch_size": batch}, ORIGIN)


def _of_the_run_before(config: Config) -> int | None:
    """The batch of the run that is gone on with; None for a new one, or where it is not known."""
    own = restarted_run()
    if own is not None:
        runs = sorted(Path(config.summary_root_dir).glob(f"{own}*{run_suffix(config)}/{CONFIG}"))
        values = read_recipe(runs[-1]) if runs else {}
    elif config.resume is not None:
        names = ("resume", "ckpt_root_dir", "arch", "model_postfix", "set", "data_url")
        given = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
        saved = saved_options(given, lambda _: None)
        values = {} if saved is None else dict(saved.values)
    else:
        return None
    found = values.get("batch_size")
    return found if type(found) is int and found > 0 else None


@dataclass(frozen=True)
class _Search:
    """Tries `run_of(batch)` for batches up to `most`; both ways give the batch and the reason."""

    run_of: Callable[[int], ResolvedRun]
    device: torch.device
    most: int

    def on_gpu(self) -> tuple[int, str]:
        free = torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device)

        def fits(batch: int) -> bool:
            torch.cuda.reset_peak_memory_stats(self.device)
            return self._runs(batch) and torch.cuda.max_memory_reserved(self.device) <= _SHARE * free

        batch = largest(fits, first=_FIRST, most=self.most, precision=_PRECISION)
        why = self._is_most()
        if batch < self.most:
            why = f"steps with it need at most {_SHARE:.0%} of the {free / 2**30:.1f} GiB free on the GPU"
        return batch // 8 * 8 if batch > 8 else batch, why

    def on_cpu(self) -> tuple[int, str]:
        known = machine.memory()
        free = None if known is None else int(known[1] * _SHARE_OF_CPU) // machine.processes_here()
        one, two = (self._peak(batch) for batch in (2, 4))
        by_image = (two - one) / 2
        most = self.most if free is None else min(self.most, int((free - one) / max(by_image, 1)) + 2)
        if most < 2:
            return 0, ""
        batch = 2
        while 2 * batch <= min(most, 8):
            batch *= 2
        while 2 * batch <= most:
            rates = self._rates(batch, 2 * batch)
            if rates[1] < _GAIN * rates[0]:
                return batch, f"{rates[0]:,.0f} images per second, {2 * batch} at once gives {rates[1]:,.0f}"
            batch *= 2
        if most < self.most:
            return batch, f"twice as many need more than half of the free memory, {by_image / 2**20:.1f} MiB per image"
        return batch, self._is_most()

    def _is_most(self) -> str:
        return f"an epoch has at least {STEPS_PER_EPOCH} steps"

    def _runs(self, batch: int) -> bool:
        """Whether two steps run; the first makes the optimizer's moments."""
        try:
            with trial(self.run_of(batch)) as tried:
                pixels = tried.pixels()
                for _ in range(2):
                    tried.step(pixels)
                tried.step.check_pending()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            return False
        finally:
            release(self.device)
        return True

    def _peak(self, batch: int) -> int:
        with trial(self.run_of(batch)) as tried:
            return tried.peak()

    def _rates(self, *batches: int) -> list[float]:
        """Images per second with each batch: the better of two measurements, in turn, for other programs' sake."""
        found = [0.0] * len(batches)
        for _ in range(2):
            for place, batch in enumerate(batches):
                with trial(self.run_of(batch)) as tried:
                    found[place] = max(found[place], tried.images_per_second(_SECONDS))
        return found
