"""`convmixer eval`: weights of any layout, or an exported file, on a labelled split."""

from __future__ import annotations

from convmixer.cli.evaluation_output import check_outputs, tell
from convmixer.config.commands import EVAL as COMMAND
from convmixer.config.resolved import Resolved
from convmixer.config.schema import EvalConfig
from convmixer.model_evaluation import evaluate_model

__all__ = ["COMMAND", "run"]


def run(resolved: Resolved[EvalConfig]) -> int:
    check_outputs(resolved.options)
    score, source = evaluate_model(resolved)
    print(f"eval results: {score.results()}")
    return tell(score, source, resolved.options)
