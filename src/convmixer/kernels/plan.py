"""Which of several right forms each pass of the fused network takes: what was predicted best until a GPU has timed them.

A form never changes what is computed, only its rounding and its speed. A plan has a text form, which the log of a run
shows and a checkpoint keeps, so that a resumed run computes by the same forms as the run that it goes on with.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal


@dataclass(frozen=True)
class Plan:
    """The forms of the passes. `str(plan)` names only what differs from `Plan()`; `Plan.parse` reads that.

    * `products`: the pointwise products by the library (cuBLAS) with passes of their own for statistics, or by Triton
      with these in the epilogue.
    * `keep`: which maps of a block the backward pass finds: its mixed map too, its two convolutions' outputs, or its
      input alone (activation checkpointing, which is only taken where it is asked for).
    """

    products: Literal["library", "triton"] = "library"
    keep: Literal["mixed", "halves", "inputs"] = "halves"

    def __str__(self) -> str:
        default = Plan()
        changed = [field.name for field in fields(self) if getattr(self, field.name) != getattr(default, field.name)]
        return " ".join(f"{name}={getattr(self, name)}" for name in changed)

    @classmethod
    @lru_cache
    def parse(cls, text: str) -> Plan:
        """The plan of a text that `str` made. Raises ValueError for another one."""
        values: dict[str, str] = {}
        for word in text.split():
            name, _, value = word.partition("=")
            if name not in {field.name for field in fields(cls)}:
                raise ValueError(f"no plan has {name}")
            values[name] = value
        return cls(**values)  # type: ignore[arg-type]
