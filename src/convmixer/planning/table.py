"""A plan as a table of text, and as a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from convmixer.planning.plan import Plan
from convmixer.terminal.progress import duration


def to_text(plan: Plan, traps: Sequence[str]) -> str:
    """The table, each row with where it is from, and the traps below."""
    speed, memory = plan.speed, plan.memory
    later = "" if speed.later == speed.first else f", {speed.first:,.0f} while images are read the first time"
    rows = [
        ("network", f"{plan.parameters:,} parameters, {plan.macs / 1e9:.3g} GMACs per image forward", "formula"),
        ("steps", f"{plan.steps:,}: {plan.epochs} epochs of {plan.steps_per_epoch}", "formula"),
        ("training", f"{speed.later:,.0f} images per second{later}", "measured"),
        ("  device alone", f"{speed.device:,.0f} images per second", "measured"),
        ("  input alone", f"{speed.input:,.0f} images per second", "measured"),
        ("  bound by", f"{plan.bound_by}: waits for data {speed.waited:.0%} of the time", "measured"),
        ("evaluation", f"{speed.evaluation:,.0f} images per second, {plan.evaluations} times", "measured"),
        ("memory", f"{_size(memory.total)}{_of(memory.free)}", "measured, one eager step"),
        (
            "  weights",
            f"{_size(memory.weights)}, optimizer {_size(memory.optimizer)}, average {_size(memory.average)}",
            "",
        ),
        ("  step", f"{_size(memory.step)} at its highest", ""),
        (
            "time",
            f"{duration(plan.seconds)}, of which evaluations {duration(plan.evaluation_seconds)}",
            "estimated, without start and report",
        ),
        ("disk", f"{_size(plan.disk)}{_of(plan.disk_free)}", "estimated"),
    ]
    wide, middle = (max(len(row[place]) for row in rows) for place in (0, 1))
    lines = [f"{name:<{wide}}  {value:<{middle}}  {origin}".rstrip() for name, value, origin in rows]
    notes = [plan.remedy] if plan.remedy is not None else []
    if memory.free is not None and memory.total > memory.free:
        notes.append("the memory does not do; lower --batch_size, or use --recompute")
    if plan.disk > plan.disk_free:
        notes.append("the disk has no room for it; lower --ckpt_keep_num, or set --ckpt_root_dir")
    return "\n".join([*lines, *(f"! {note}" for note in (*notes, *traps))])


def to_record(plan: Plan, traps: Sequence[str]) -> dict[str, Any]:
    """All of it, in bytes, seconds and images per second."""
    return {**asdict(plan), "seconds": plan.seconds, "traps": list(traps)}


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _of(free: int | None) -> str:
    return "" if free is None else f" of {_size(free)} free"
