"""The result files of training_curves: JSON, Markdown and a chart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from machine import hardware, versions
from model_speed_report import write_files

COLOURS = ("#7f8fa6", "#d95f02", "#1b9e77", "#7570b3")


def write_report(result: dict[str, Any], folder: Path, name: str) -> None:
    """`<name>.json`, `<name>.md` and, with matplotlib, `<name>.png`."""
    result = result | {"hardware": hardware(), "versions": versions()}
    write_files(result, folder, name, json.dumps(_rounded(result), indent=1), chart, table)


def _rounded(value: Any) -> Any:
    """Floats to seven significant digits, which is what float32 has."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def table(result: dict[str, Any], picture: str | None) -> str:
    """Markdown."""
    machine = (*result["hardware"].items(), *result["versions"].items())
    lines = [f"# Learning curves on {result['set']}, {result['date']}", "", "By `benchmarks/training_curves.py`.", ""]
    lines += [f"* command: `{result['command']}`"]
    lines += [f"* {name}: {' '.join(value) if isinstance(value, list) else value}" for name, value in machine]
    lines += ["", verdict(result["comparison"]), ""]
    if picture is not None:
        lines += [f"![chart]({picture})", ""]
    lines += ["Distances: loss is the mean over an epoch, the most over the epochs; top-1 is the last one.", ""]
    lines += ["| pair | loss | top-1 | relative, loss of the first steps |", "|---|---|---|---|"]
    comparison = result["comparison"]
    first = comparison["reference"]
    for pair in comparison["pairs"]:
        lines.append(_row(f"{pair['execution']} to {first}, seed {pair['seed']}", pair))
    if comparison["seeds"] is not None:
        lines.append(_row(f"seed to seed, {first}", comparison["seeds"]))
    lines += ["", "| run | backend | loss of each epoch | top-1 after each epoch, % | s |", "|---|---|---|---|---|"]
    for run, losses in zip(result["runs"], result["epoch_losses"], strict=True):
        cells = [f"{run['execution']}, seed {run['seed']}", run["backend"], " ".join(f"{loss:.4f}" for loss in losses)]
        cells += [" ".join(f"{100 * top1:.2f}" for top1 in run["top1"]), f"{run['seconds']:g}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _row(name: str, found: dict[str, float]) -> str:
    return f"| {name} | {found['loss']:.2g} | {100 * found['top1']:.2f} % | {found['first_steps']:.1e} |"


def verdict(comparison: dict[str, Any]) -> str:
    """Whether the curves are equal, in a sentence."""
    pairs, seeds = comparison["pairs"], comparison["seeds"]
    if not pairs or seeds is None:
        return "No verdict yet: it takes two executions and two seeds."
    loss, top1 = (max(pair[key] for pair in pairs) for key in ("loss", "top1"))
    error = 100 * comparison["top1_standard_error"]
    alike = "Equal" if all(pair["trains_alike"] for pair in pairs) else "NOT equal"
    return (
        f"**{alike}**: at the same seed the losses are at most {loss:.2g} apart and the last top-1 {100 * top1:.2f} %; "
        f"two seeds of {comparison['reference']} are {seeds['loss']:.2g} and {100 * seeds['top1']:.2f} % apart "
        f"(a top-1 has a standard error of {error:.2f} %)."
    )


def chart(result: dict[str, Any], path: Path) -> None:
    """Loss and top-1 over the epochs: one colour per backend, one line style per seed. Raises ImportError."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    executions = list(dict.fromkeys(run["execution"] for run in result["runs"]))
    seeds = list(dict.fromkeys(run["seed"] for run in result["runs"]))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.2))
    for run, losses in zip(result["runs"], result["epoch_losses"], strict=True):
        at = executions.index(run["execution"])
        # The first execution lies broad beneath the others, which would hide it where they are equal.
        style: dict[str, Any] = {
            "color": COLOURS[at % len(COLOURS)],
            "linestyle": ("-", "--", ":")[seeds.index(run["seed"]) % 3],
        }
        style |= {"linewidth": 4 if at == 0 else 1.5, "label": f"{run['execution']}, seed {run['seed']}"}
        epochs = range(1, len(losses) + 1)
        left.plot(epochs, losses, **style)
        right.plot(epochs, [100 * top1 for top1 in run["top1"]], **style)
    left.set_ylabel("loss, mean over an epoch")
    right.set_ylabel("top-1, %")
    for axis in (left, right):
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    device = result["hardware"].get("gpu", result["hardware"]["processor"])
    figure.suptitle(f"ConvMixer-256/8 on {result['set']}, {device}, {result['date']}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
