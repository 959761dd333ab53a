"""The measured choice between ways of running a ConvMixer.

A `Way` (`ways`) makes a network of the model's own module and parameters: torch's operators in one memory layout or
the other, torch.compile, or our fast path (`kernels` on a GPU, `packed` and `depthwise` on a CPU). For a job that
outlasts the tuning, `choice` times those that apply (`measure`), keeps the fastest that gives the right answer, and
remembers the times on disk (`cache`). One that fails all the same is left for another (`fallback`), before a training
run starts (`trial`).
"""

from __future__ import annotations

from convmixer.execution.choice import (
    Execution,
    attempts,
    build_network,
    choose_evaluation_way,
    choose_network,
    choose_way,
    evaluation_network,
    ways_asked_for,
)
from convmixer.execution.job import Job

__all__ = [
    "Execution",
    "Job",
    "attempts",
    "build_network",
    "choose_evaluation_way",
    "choose_network",
    "choose_way",
    "evaluation_network",
    "ways_asked_for",
]
