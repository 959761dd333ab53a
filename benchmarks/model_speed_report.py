"""The result files of model_speed: JSON, a Markdown table and a chart."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import hardware, versions


def write_report(result: dict[str, Any], folder: Path, name: str) -> None:
    """`<name>.json`, `<name>.md` and, with matplotlib, `<name>.png`, from what has been measured so far."""
    result["hardware"], result["versions"] = hardware(), versions()
    write_files(result, folder, name, json.dumps(result, indent=1), chart, table)


def write_files(
    result: dict[str, Any],
    folder: Path,
    name: str,
    record: str,
    chart: Callable[[dict[str, Any], Path], None],
    table: Callable[[dict[str, Any], str | None], str],
) -> None:
    """The result as `<name>.json` (`record`), as `<name>.png` unless `chart` raises ImportError, and as `<name>.md`.

    `chart(result, path)` draws; `table(result, picture)` makes Markdown, with the picture's name where there is one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(record + "\n", encoding="utf-8")
    try:
        chart(result, folder / f"{name}.png")
    except ImportError as error:
        print(f"no chart: {error}", file=sys.stderr)
    has_chart = (folder / f"{name}.png").is_file()
    (folder / f"{name}.md").write_text(table(result, f"{name}.png" if has_chart else None), encoding="utf-8")


def table(result: dict[str, Any], picture: str | None) -> str:
    """Markdown."""
    lines = [f"# Speed of ConvMixer, {result['date']}", "", "By `benchmarks/model_speed.py`.", ""]
    lines += [f"* options: {_text(result['options'])}", f"* duration: {result['minutes']} minutes"]
    lines += [f"* {name}: {_text(value)}" for name, value in (*result["hardware"].items(), *result["versions"].items())]
    lines += [f"* roofline, measured: {_text(result['roofline'])}", ""]
    lines += [
        "Images a second: the median of the rounds, and the best of them. Ratio: the median over the rounds of the time"
        " of the first contender over this one's in the same round. Error: relative distance of the logits (training:"
        " of all gradients) to eager fp32.",
        "",
    ]
    if picture is not None:
        lines += [f"![chart]({picture})", ""]
    for setting in result["settings"]:
        lines += [f"## {setting['title']}", "", f"Load of the machine before: {setting['load_before']}.", ""]
        lines += ["| contender | img/s | best | ratio | error | note |", "|---|---|---|---|---|---|"]
        for row in setting["rows"]:
            cells = [row.get(key, "") for key in ("images_per_second", "best_images_per_second", "ratio")]
            error = f"{row['error']:.1e}" if "error" in row else ""
            lines.append("| " + " | ".join(map(str, (row["name"], *cells, error, row.get("note", "")))) + " |")
        lines.append("")
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items() if item is not None)
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def chart(result: dict[str, Any], path: Path) -> None:
    """A panel per setting, a bar per contender, in images per second; ours in another colour. Raises ImportError."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings = [setting for setting in result["settings"] if any("ratio" in row for row in setting["rows"])]
    if not settings:
        return
    columns = min(2, len(settings))
    rows = -(-len(settings) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(8 * columns, 3.2 * rows), squeeze=False)
    for axis in axes.flat[len(settings) :]:
        axis.remove()
    for axis, setting in zip(axes.flat, settings, strict=False):
        timed = [row for row in setting["rows"] if "ratio" in row]
        colours = ["#d95f02" if row["name"].startswith("ours") else "#7f8fa6" for row in timed]
        bars = axis.barh([row["name"] for row in timed], [row["images_per_second"] for row in timed], color=colours)
        labels = [f" {row['images_per_second']:g}  ({row['ratio']:g} x)" for row in timed]
        axis.bar_label(bars, labels=labels, fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.3)
        axis.set_title(setting["title"], fontsize=9)
        axis.set_xlabel("images per second", fontsize=8)
        axis.tick_params(labelsize=8)
    figure.suptitle(f"{result['hardware'].get('gpu', result['hardware']['processor'])}, {result['date']}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
