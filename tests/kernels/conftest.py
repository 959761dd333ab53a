"""Where the tests of `device` run: on a GPU, or in a process of their own in Triton's interpreter.

Triton chooses its interpreter when it is imported, once for a process, and the whole suite must not run in it.
"""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["device/*"]


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)
