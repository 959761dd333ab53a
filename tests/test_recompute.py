"""Activation checkpointing: the same gradients to the bit, statistics that move once, one map kept for each block."""

from __future__ import annotations

import copy
import math
import multiprocessing
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.conftest import Command, ToyOptions, Train
from tests.kernels.device.test_memory import HALF, IMAGES, INPUT, MAP, SIDE, kept, network
from tests.project import SRC_AND_TESTS, project_environment
from tests.reliability.conftest import assert_equal, assert_same_checkpoint, newest
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from convmixer.arch import Activation
from convmixer.backends.onednn_training import training_forward
from convmixer.model import ConvMixer, create_model
from convmixer.training.non_finite import trace
from convmixer.training.sync_batchnorm import SyncBatchNorm2d

Forward = Callable[[ConvMixer, Tensor], Tensor]
CPU = torch.device("cpu")


def plain(model: ConvMixer, images: Tensor) -> Tensor:
    logits: Tensor = model(images)
    return logits


def model_of(activation: Activation = "gelu", layout: torch.memory_format = torch.channels_last) -> ConvMixer:
    torch.manual_seed(0)
    model = create_model("convmixer_16_3", kernel_size=3, patch_size=2, activation=activation, num_classes=5)
    return model.to(memory_format=layout).train()


def trained(model: ConvMixer, forward: Forward, *, recompute: bool, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """Logits, gradients and buffers after two micro-batches."""
    model = copy.deepcopy(model)
    model.recompute = recompute
    generator = torch.Generator().manual_seed(1)
    logits = []
    for _ in range(2):
        images = torch.randn(4, 3, 8, 8, generator=generator)
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            logits.append(forward(model, images))
        nn.functional.cross_entropy(logits[-1].float(), torch.arange(4)).backward()
    return {
        "logits": [one.detach() for one in logits],
        "gradients": {name: p.grad for name, p in model.named_parameters() if p.grad is not None},
        "buffers": dict(model.named_buffers()),
    }


@contextmanager
def passes_of(model: ConvMixer) -> Iterator[list[int]]:
    """Counts the calls of the blocks' activation, two a pass of a block."""
    calls = [0]

    def count(*_: object) -> None:
        calls[0] += 1

    handles = [block.get_submodule("act").register_forward_hook(count) for block in model.blocks]
    yield calls
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("forward", [plain, training_forward])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_same_to_the_bit(
    activation: Activation, forward: Forward, layout: torch.memory_format, dtype: torch.dtype | None
) -> None:
    model = model_of(activation, layout)
    without = trained(model, forward, recompute=False, dtype=dtype)
    assert len(without["gradients"]) == len(list(model.parameters()))
    assert without["buffers"]["blocks.0.depthwise_norm.num_batches_tracked"] == 2
    assert_equal(trained(model, forward, recompute=True, dtype=dtype), without, "recompute")


@pytest.mark.parametrize("forward", [plain, training_forward])
def test_a_cumulative_average_of_the_statistics_moves_once(forward: Forward) -> None:
    """Momentum None: the factor is 1 over the count of batches, which a second count would halve."""
    model = model_of()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None
    without = trained(model, forward, recompute=False)
    assert_equal(trained(model, forward, recompute=True), without, "recompute")


def test_torchs_synchronised_batchnorm() -> None:
    """Alone, as it is plain then; of several processes it takes GPUs only."""
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model_of())
    assert isinstance(model.blocks[0].pointwise_norm, nn.SyncBatchNorm)
    assert_equal(trained(model, plain, recompute=True), trained(model, plain, recompute=False), "recompute")


@pytest.mark.parametrize("recompute", [False, True])
def test_a_number_that_is_not_finite_is_traced(recompute: bool) -> None:
    """To the same layer: forward, and in the backward pass, which anomaly detection watches."""
    model, images = model_of(), torch.randn(2, 3, 8, 8)
    model.recompute = recompute

    def spoil(norm: nn.Module, to: Any, of: Any) -> tuple[Tensor]:
        return (to[0] * math.nan,)

    model.get_submodule("blocks.1.pointwise_norm").register_full_backward_hook(spoil)
    found = trace(model, lambda: model(images).sum())
    assert found is not None
    assert found.startswith("backward: ")
    model.get_parameter("blocks.1.depthwise.weight").data[0] = math.nan
    assert trace(model, lambda: model(images).sum()) == (
        "forward: first non-finite output at blocks.1.depthwise (Conv2d)"
    )


def test_batchnorm_without_statistics() -> None:
    model = model_of()
    for block in model.blocks:
        block.pointwise_norm = nn.BatchNorm2d(16, track_running_stats=False)
    assert_equal(trained(model, plain, recompute=True), trained(model, plain, recompute=False), "recompute")


@pytest.mark.parametrize("forward", [plain, training_forward])
def test_frozen_statistics_stay(forward: Forward) -> None:
    model = model_of()
    model.blocks[:2].eval()
    before = {name: value.clone() for name, value in model.blocks[:2].named_buffers()}
    without = trained(model, forward, recompute=False)
    found = trained(model, forward, recompute=True)
    assert_equal(found, without, "recompute")
    for name, value in before.items():
        assert torch.equal(found["buffers"][f"blocks.{name}"], value), name


@pytest.mark.parametrize("forward", [plain, training_forward])
def test_a_frozen_network_is_not_computed_twice(forward: Forward) -> None:
    model = model_of().requires_grad_(False)
    model.head.requires_grad_(True)
    model.stem.eval()
    model.blocks.eval()
    assert_equal(trained(model, forward, recompute=True), trained(model, forward, recompute=False), "recompute")
    model.recompute = True
    with passes_of(model) as calls:
        forward(model, torch.randn(2, 3, 8, 8)).sum().backward()
    assert calls == [2 * 3]


@pytest.mark.parametrize("forward", [plain, training_forward])
def test_statistics_are_the_same_tensors_afterwards(forward: Forward) -> None:
    """DDP and the average of the weights hold them; a backward pass may be made twice."""
    model = model_of()
    model.recompute = True
    before = {name: id(buffer) for name, buffer in model.named_buffers()}
    with passes_of(model) as calls:
        loss = forward(model, torch.randn(2, 3, 8, 8)).sum()
        assert calls == [2 * 3]
        loss.backward(retain_graph=True)
        once = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        assert calls[0] > 2 * 3
        loss.backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, 2 * once[name], rtol=0, atol=0)
    assert {name: id(buffer) for name, buffer in model.named_buffers()} == before
    assert model.get_buffer("blocks.1.pointwise_norm.num_batches_tracked") == 1


def test_a_second_pass_that_fails_leaves_the_statistics() -> None:
    model = model_of()
    model.recompute = True
    loss = model(torch.randn(2, 3, 8, 8)).sum()
    before = {name: (id(buffer), buffer.clone()) for name, buffer in model.named_buffers()}

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    model.get_submodule("blocks.1.pointwise_norm").register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        loss.backward()
    for name, buffer in model.named_buffers():
        assert id(buffer) == before[name][0]
        assert torch.equal(buffer, before[name][1])


def test_evaluation_is_as_ever() -> None:
    model, images = model_of().eval(), torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        right = model(images)
        model.recompute = True
        assert torch.equal(model(images), right)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize(("activation", "stem"), [("relu", 1), ("gelu", 2)])
def test_one_map_a_block_is_kept(activation: Activation, stem: int, depth: int) -> None:
    """The blocks' inputs; the stem's images in bf16, its BatchNorm's and its activation's input, as without."""
    model, images = network(activation, depth, CPU), torch.randn(IMAGES, 3, SIDE, SIDE)
    model.recompute = True
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = kept(lambda: model(images))
    assert found == sorted([HALF * INPUT] + [HALF * MAP] * (depth + stem))


@pytest.mark.parametrize("depth", [1, 3])
def test_one_map_a_block_is_kept_by_the_fused_training_of_a_cpu(depth: int) -> None:
    model, images = network("relu", depth, CPU), torch.randn(IMAGES, 3, SIDE, SIDE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        without = kept(lambda: training_forward(model, images))
        model.recompute = True
        found = kept(lambda: training_forward(model, images))
    assert found == sorted([HALF * INPUT] + [HALF * MAP] * (depth + 1))
    assert len(without) == 1 + 4 * depth + 1


STEP = """
import sys
import torch
from tests.fuzz.guard import peak
from convmixer.backends.onednn_training import training_forward
from convmixer.model import create_model

def step(arch, images, recompute):
    model = create_model(arch, kernel_size=5, patch_size=2, num_classes=10).train()
    model.to(memory_format=torch.channels_last).recompute = recompute
    before = peak()
    training_forward(model, images).sum().backward()
    return peak() - before

step("convmixer_8_1", torch.randn(2, 3, 32, 32), True)  # what torch imports at its first checkpoint is no map
print(step("convmixer_256_8", torch.randn(32, 3, 32, 32), sys.argv[1] == "True"))
"""


@pytest.mark.slow
def test_peak_of_a_cpus_memory() -> None:
    """8 blocks of GELU, a map of 8.4 MB: 6 * 8 + 2 maps and 3 of a step against 8 + 2 + 6 and 3, 0.36 of them.

    Large pieces are given back at once, as a GPU's allocator gives them to the next one that asks.
    """
    thresholds = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "1000000"}
    environment = project_environment(PYTHONPATH=SRC_AND_TESTS, **thresholds)
    plain, recomputed = (
        int(subprocess.check_output([sys.executable, "-c", STEP, str(recompute)], env=environment, text=True))
        for recompute in (False, True)
    )
    assert plain > 6 * 8 * 8.4e6
    assert recomputed < 0.5 * plain, (recomputed, plain)


def _train_in_two(rank: int, store: str, box: Any) -> None:
    """Each kind of BatchNorm, without and with recomputation; gradients and buffers of all four."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    kinds = (nn.BatchNorm2d, SyncBatchNorm2d)
    box.put((rank, [_ends(rank, recompute, kind) for kind in kinds for recompute in (False, True)]))
    torch.distributed.destroy_process_group()


def _ends(rank: int, recompute: bool, kind: type[nn.BatchNorm2d]) -> dict[str, Any]:
    model = model_of()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.__class__ = kind
    model.recompute = recompute
    network = DistributedDataParallel(model, find_unused_parameters=True)
    generator = torch.Generator().manual_seed(rank)
    for step in range(3):
        with network.no_sync() if step == 1 else nullcontext():
            logits = network(torch.randn(4, 3, 8, 8, generator=generator))
            nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    return gradients | {f"{name}, a buffer": buffer.numpy() for name, buffer in model.named_buffers()}


@pytest.mark.slow
def test_several_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    box = context.Queue()
    processes = [context.Process(target=_train_in_two, args=(rank, str(tmp_path / "store"), box)) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict(box.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    for rank in range(2):
        plain, plain_again, synchronised, synchronised_again = found[rank]
        for one, other in ((plain, plain_again), (synchronised, synchronised_again)):
            assert one.keys() == other.keys()
            assert [name for name in one if (one[name] != other[name]).any()] == []
        assert (plain["head.weight"] != synchronised["head.weight"]).any()
    assert (found[0][2]["head.weight"] == found[1][2]["head.weight"]).all()


def test_a_run_goes_on_with_or_without(
    train: Train, convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions, tmp_path: Path
) -> None:
    """The key of a YAML file and the option; what is resumed the other way ends as the whole run, to the bit."""
    (here / "small.yaml").write_text("recompute: true\n")
    words = ["--config=small.yaml", "--with_ema", "--mixup=0.4", "--ckpt_save_every_step=1"]
    whole = train(*words, "--recompute=false")
    shutil.move(here / "runs", tmp_path / "whole")
    begun = train(*words, "--dump_graph")
    assert yaml.safe_load((begun.summary / "config.yaml").read_text())["recompute"] is True
    for path in begun.checkpoints.iterdir():
        if path.name > "step_00000004":
            shutil.rmtree(path)
    done = convmixer("train", *toy_options(toy), *words, "--recompute=false", f"--resume={begun.checkpoints}")
    assert done.code == 0, done.err
    last = newest(tmp_path / "whole/checkpoints" / whole.name)
    assert_same_checkpoint(last, newest(begun.checkpoints))


@pytest.mark.parametrize("words", [["--compile"], ["--execution=compile"]])
def test_compile_is_refused(words: list[str], convmixer: Command) -> None:
    done = convmixer("train", "--recompute", *words)
    assert done.code == 2
    assert done.error.startswith("--recompute: ")
    assert "compile" in done.error
