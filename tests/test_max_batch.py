"""The search of benchmarks/max_batch.py and of --batch_size auto, against limits that are known."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from tests.project import ROOT

from convmixer.training.memory_use import largest

SCRIPT = ROOT / "benchmarks/max_batch.py"


@pytest.mark.parametrize("limit", [0, 1, 15, 16, 17, 100, 511, 512, 1000])
def test_the_answer_fits_and_is_near_the_limit(limit: int) -> None:
    tried: list[int] = []

    def fits(batch: int) -> bool:
        tried.append(batch)
        return batch <= limit

    answer = largest(fits)
    assert answer <= limit
    assert limit - answer <= max(0, limit // 32)
    assert answer == 0 or answer in tried
    assert len(tried) == len(set(tried)) <= 14


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would start to measure")
def test_without_a_gpu_it_says_so_in_a_line() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "max_batch: needs a CUDA GPU\n")
