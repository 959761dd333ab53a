"""`convmixer.evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convmixer.api.options import PathLike, given_to, resolved_arguments
from convmixer.packages import needed_for

if TYPE_CHECKING:
    from convmixer.config.schema import Config
    from convmixer.data.source import Source
    from convmixer.metrics.score import Score


@dataclass(frozen=True)
class EvaluationResult:
    """Means over the images that could be read, and those that could not, as (name, reason).

    `loss`: cross-entropy; `top1`, `top5`: accuracy, 0 to 1 (top5 is 1 with fewer than five classes);
    `balanced_accuracy`: mean recall of the classes; `calibration_error`: expected calibration error. `by_class`:
    precision, recall, F1 and support of each class, with its `name`. `answers`: a row per image, with its `path`,
    `label`, `predicted` class, and the `probability` of that class and of the label (`label_probability`).
    """

    loss: float
    top1: float
    top5: float
    images: int
    unreadable: tuple[tuple[str, str], ...] = ()
    balanced_accuracy: float = 0.0
    macro_f1: float = 0.0
    calibration_error: float = 0.0
    by_class: tuple[Mapping[str, Any], ...] = ()
    answers: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, score: Score, source: Source) -> EvaluationResult:
        from convmixer.metrics.tables import answer_rows, record

        means, whole = score.results(), record(score, source)
        return cls(
            means["Loss"],
            means["Top1-Acc"],
            means["Top5-Acc"],
            score.count,
            tuple((bad["path"], bad["reason"]) for bad in whole["unreadable"]),
            balanced_accuracy=whole["balanced_accuracy"],
            macro_f1=whole["macro_f1"],
            calibration_error=whole["calibration_error"],
            by_class=tuple(whole["classes"]),
            answers=tuple(answer_rows(score, source)),
        )


@needed_for("convmixer.evaluate")
def evaluate(
    weights: PathLike,
    data: PathLike | None = None,
    *,
    recipe: PathLike | None = None,
    config: Config | None = None,
    **options: Any,
) -> EvaluationResult:
    """Evaluate weights of any layout, a checkpoint folder, or an exported file on labelled images.

    `data`: a folder with a folder per class in its folder `val` (`val_dir`); left out: what the recipe says, else the
    built-in digits. `options`: any that `convmixer eval --help` lists, also as a `config`. Raises UserError for what
    does not fit.
    """
    from convmixer.config.commands import EVAL
    from convmixer.model_evaluation import evaluate_model

    folder = {} if data is None else {"data_url": data}
    given = {**given_to(config), "pretrained": weights, **folder, **options}
    score, source = evaluate_model(resolved_arguments(EVAL, given, recipe))
    return EvaluationResult.of(score, source)
