"""The page of a run, and the page that compares several, from what is known of them; every name is escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from shlex import quote
from typing import Any

from convmixer.metrics.classification import Calibration, ClassScores
from convmixer.printable import printable
from convmixer.report.curves import Chart, reliability, svg
from convmixer.report.tables import classes_of, confusions, differing_options, facts_of_run, options_of_run
from convmixer.report.verdict import sentences
from convmixer.runs.record import Predictions, RunRecord

_FEW_CLASSES = 5  # with which top-5 says nothing


def run_page(record: RunRecord, charts: Sequence[Chart], shown: Mapping[str, Any]) -> str:
    """The page of a run. `shown`: what `write` knows of images and data, by the names in the template."""
    found, classes = record.predictions, record.classes
    evaluated, options = record.lines("eval"), record.options
    values: dict[str, Any] = {
        "title": printable(record.name),
        "subtitle": printable(f"{options.get('arch')} on {options.get('data_url') or options.get('set')}"),
        "verdict": sentences(evaluated, found, classes, record.lines("train")),
        "scores": scores(evaluated, found, classes),
        "drawn": _drawn(charts),
        "command": printable(str(record.facts.get("command", ""))),
        "resume": printable(f"convmixer train --resume {quote(record.checkpoints)}"),
        "options": options_of_run(record),
        "facts": facts_of_run(record),
        **shown,
    }
    if found is not None and len(found):
        values["class_rows"] = classes_of(found, classes)
        values["confusion"] = confusions(found, classes)
        values["reliability"] = _drawn([reliability_of(found)])[0]
    return _rendered("run.html", values)


def reliability_of(found: Predictions) -> Chart:
    calibration = Calibration.of(found.probability, found.labels == found.predicted)
    return reliability(calibration.confidence, calibration.accuracy, calibration.counts)


def runs_page(records: Mapping[str, RunRecord], charts: Sequence[Chart]) -> str:
    """The page that compares runs, by their names."""
    all_scores = {
        name: dict(scores(record.lines("eval"), record.predictions, record.classes)) for name, record in records.items()
    }
    columns = list(dict.fromkeys(key for each in all_scores.values() for key in each))
    rows = [
        {"name": printable(name), "numbers": [_sortable(each.get(column, "")) for column in columns]}
        for name, each in all_scores.items()
    ]
    values = {
        "title": f"{len(records)} runs",
        "columns": ["run", *columns],
        "rows": rows,
        "drawn": _drawn(charts),
        "differing": differing_options(records),
    }
    return _rendered("runs.html", values)


def scores(
    evaluated: Sequence[Mapping[str, Any]], found: Predictions | None, classes: Sequence[str]
) -> list[tuple[str, str]]:
    """Names and values of the best weights' scores."""
    lines = [line for line in evaluated if isinstance(line.get("Top1-Acc"), float | int)]
    if not lines:
        return []
    best = max(lines, key=lambda line: line["Top1-Acc"])
    rows = [("top-1", f"{best['Top1-Acc']:.2%}")]
    if len(classes) > _FEW_CLASSES:
        rows.append(("top-5", f"{best.get('Top5-Acc', 0.0):.2%}"))
    if found is not None and len(found):
        by_class = ClassScores.of(found.labels, found.predicted, len(classes))
        error = Calibration.of(found.probability, found.labels == found.predicted).error
        rows += [
            ("mean recall of the classes", f"{by_class.balanced_accuracy:.2%}"),
            ("macro F1", f"{by_class.macro[2]:.3f}"),
            ("calibration error", f"{error:.1%}"),
        ]
    rows += [("evaluation loss", f"{best.get('Loss', float('nan')):.4f}"), ("best after epoch", f"{best['epoch']:g}")]
    return rows


def _sortable(text: str) -> dict[str, str]:
    return {"text": text, "sort": text.rstrip("%") if text else "-1"}


def _drawn(charts: Sequence[Chart]) -> list[dict[str, Any]]:
    from markupsafe import Markup

    # Drawn by us, with the names in it escaped by matplotlib.
    return [{"title": chart.title, "svg": Markup(svg(chart))} for chart in charts]


@cache
def _file(name: str) -> str:
    return (files("convmixer.report") / "templates" / name).read_text(encoding="utf-8")


def _rendered(template: str, values: Mapping[str, Any]) -> str:
    from jinja2 import Environment, FunctionLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    environment = Environment(
        loader=FunctionLoader(_file),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _file("sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    blank = dict.fromkeys(
        ("class_rows", "confusion", "mistakes", "hits", "no_pictures", "reliability", "batch", "findings")
    )
    own = {"style": Markup(_file("report.css")), "script": Markup(script), "script_hash": digest}
    return environment.get_template(template).render({**blank, **values, **own})
