"""`convmixer.train`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convmixer.api.options import PathLike, given_to, resolved_arguments
from convmixer.errors import UserError
from convmixer.packages import needed_for
from convmixer.runs.result import RunResult

if TYPE_CHECKING:
    from convmixer.config.schema import Config


@needed_for("convmixer.train")
def train(
    data: PathLike | None = None, *, recipe: PathLike | None = None, config: Config | None = None, **options: Any
) -> RunResult | None:
    """Train a network on a folder of images, with a folder per class in its folders `train` and `val`.

    `data`: that folder; left out: the built-in digits. `recipe`: a YAML file or the name of a shipped recipe.
    `options`: any of `convmixer train`, as `epochs=10`; they win over the recipe. A `config`, as `Config(epochs=10)`,
    holds the same, for editors and type checkers to know; what it leaves out is the recipe's. Where torchrun has
    started several processes they train together, and the result is None in all but the first.

    Raises UserError for what does not fit or fails, and `convmixer.training.signals.Stopped` after a clean save where
    a signal came.
    """
    from convmixer.distributed.processes import Processes
    from convmixer.runs.saved import TRAIN
    from convmixer.training.run import run_training

    given = {**given_to(config), **({} if data is None else {"data_url": data}), **options}
    resolved = resolved_arguments(TRAIN, given, recipe)
    processes = Processes.from_environment()
    if processes.count == 1 and resolved.options.device_num > 1:
        raise UserError("device_num: in Python one process trains; `convmixer train` or torchrun start several")
    words = " ".join(f"{name}={value!r}" for name, value in {"recipe": recipe, **given}.items() if value is not None)
    result = run_training(resolved, processes, f"convmixer.train({words})")
    if result is not None and resolved.options.report:
        from convmixer.report.write import report_at_the_end

        report_at_the_end(result.summary)
    return result
