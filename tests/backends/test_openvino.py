"""The network in OpenVINO answers as the module does; requests of any size give every image its answer."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.backends.conftest import MakeModel, MakeWorkload

from convmixer.backends.autotune.benchmark import benchmark
from convmixer.backends.autotune.choose import choose_backend
from convmixer.backends.registry import backends_for
from convmixer.errors import UserError

openvino = pytest.importorskip("openvino")

from convmixer.backends.openvino.engine import OpenVinoEngine
from convmixer.backends.openvino.network import OpenVinoConvMixer


# torch says that an even side costs it a copy.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    "options",
    [{"activation": "relu"}, {"activation": "gelu"}, {"activation": "gelu_tanh"}, {"kernel_size": 4}, {"in_chans": 1}],
)
@pytest.mark.parametrize("count", [1, 3, 70])
def test_logits_of_the_module(small_model: MakeModel, options: dict[str, object], count: int) -> None:
    model = small_model(**options)
    images = torch.randn(count, model.arch.in_chans, 18, 18)
    with torch.inference_mode():
        found = OpenVinoConvMixer(model, 18, torch.float32)(images)
        torch.testing.assert_close(found, model(images), rtol=1e-4, atol=1e-4)


def test_batches_of_changing_size(small_model: MakeModel) -> None:
    model = small_model()
    network = OpenVinoConvMixer(model, 16, torch.float32)
    with torch.inference_mode():
        for count in (4, 33, 1, 4):
            images = torch.randn(count, 3, 16, 16)
            torch.testing.assert_close(network(images), model(images), rtol=1e-4, atol=1e-4)


def test_a_graph_of_fixed_batch_gets_as_many() -> None:
    images = openvino.opset13.parameter([4, 3, 2, 2], np.float32)
    graph = openvino.Model([openvino.opset13.reduce_sum(images, np.array([2, 3]), False)], [images], "sums")
    given = np.random.default_rng(0).random((6, 3, 2, 2), dtype=np.float32)
    np.testing.assert_allclose(OpenVinoEngine(graph, "f32")(given), given.sum(axis=(2, 3)), rtol=1e-6)


def test_the_choice_measures_it_and_takes_it_when_asked(small_model: MakeModel, workload_of: MakeWorkload) -> None:
    model = small_model()
    workload, said = workload_of(model), list[str]()
    backends = [backend for backend in backends_for(workload) if backend.kind in ("eager", "openvino")]
    timing = benchmark(backends, model, workload, 0.1)["OpenVINO"]
    assert timing.failure is None
    assert 0 < timing.image_seconds < 1
    assert choose_backend(model, workload, 1, "openvino", said.append) == "OpenVINO"
    assert said == ["execution: OpenVINO, as asked for"]


def test_not_for_training(small_model: MakeModel, workload_of: MakeWorkload) -> None:
    model = small_model()
    with pytest.raises(UserError) as refusal:
        choose_backend(model, workload_of(model, training=True), 1, "openvino", lambda _: None)
    assert str(refusal.value) == (
        "--execution: there is nothing openvino for training of this network on cpu; it needs inference on a CPU in "
        "fp32, or in bf16 where the processor has it: pip install 'convmixer[openvino]'"
    )
    assert refusal.value.exit_code == 2


SIGNALLED = """
import os, signal
import numpy, openvino
from openvino import opset13 as ops
from convmixer.backends.openvino.engine import OpenVinoEngine
engine = None
for count in (1, 40, 1, 70):
    images = ops.parameter([-1, 3, 2, 2], numpy.float32)
    graph = openvino.Model([ops.reduce_sum(images, numpy.array([2, 3]), False)], [images], "sums")
    following = OpenVinoEngine(graph, "f32")
    following(numpy.zeros((count, 3, 2, 2), numpy.float32))
    engine = following
del engine, following
seen = []
signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
os.kill(os.getpid(), signal.SIGTERM)
print(seen)
"""


def test_a_signal_after_engines_have_come_and_gone() -> None:
    """OpenVINO's own cores would each leave a signal stack that is freed; see `core`."""
    found = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "[15]\n")
