"""The picture of a range test."""

from __future__ import annotations

from io import BytesIO

from convmixer.planning.learning_rate import Curve


def plot(curve: Curve, title: str) -> bytes:
    """The curve as PNG."""
    # Imported when a picture is drawn: it takes half a second.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, ".", markersize=3, color="#9fb6c9", label="loss of a step")
    axes.plot(curve.rates, curve.trend, linewidth=1.6, color="#3b76af", label="smoothed")
    axes.axvline(curve.suggestion, linewidth=1.4, color="#e2a13d", label=f"suggested, {curve.suggestion:.2g}")
    low, high = curve.trend.min(), curve.start
    axes.set_ylim(low - 0.2 * (high - low), high + 0.5 * (high - low))
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.set_title(title.replace("$", r"\$"), fontsize=10)
    axes.grid(True, linewidth=0.5, color="#d5dade")
    axes.legend(frameon=False, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
