"""What runs where a backend fails, when it is built or in one of its passes; and what a trial leaves behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.backends.conftest import EAGER, MakeModel, MakeWorkload, backend
from torch import Tensor, nn

from convmixer.backends import registry
from convmixer.backends.autotune.choose import attempts, build_network, evaluation_network
from convmixer.backends.autotune.fallback import build_tried
from convmixer.backends.autotune.trial import try_training
from convmixer.backends.workload import Workload
from convmixer.errors import UserError
from convmixer.model import ConvMixer
from convmixer.training.network import training_mode


class Right(nn.Module):
    def __init__(self, model: ConvMixer) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits


class FailsForward(Right):
    def forward(self, images: Tensor) -> Tensor:
        super().forward(images)
        raise RuntimeError("no forward pass")


class FailsBackward(Right):
    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        logits.register_hook(fail)
        return logits


class NoMemory(Right):
    def forward(self, images: Tensor) -> Tensor:
        super().forward(images)
        raise torch.OutOfMemoryError("CUDA out of memory")


class NoMemoryOnACpu(Right):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + torch.empty(2**60)


class CannotBeBuilt(Right):
    def __init__(self, model: ConvMixer) -> None:
        raise ImportError("no such library")


def fail(grad: Tensor) -> Tensor:
    raise RuntimeError("no backward pass")


FAULTS = {
    FailsForward: "RuntimeError: no forward pass",
    FailsBackward: "RuntimeError: no backward pass",
    CannotBeBuilt: "ImportError: no such library",
}


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the backends: eager, `fused` and `graph`, which falls back to it, made of these networks."""

    def set_backends(graph: type[Right], fused: type[Right]) -> None:
        graphed = backend("graph", graph, fallback="fused", holds_memory=True, takes_plan=True)
        monkeypatch.setattr(registry, "BACKENDS", (EAGER, backend("fused", fused, takes_plan=True), graphed))

    return set_backends


def state_of(model: ConvMixer) -> list[Any]:
    tensors = [(name, tensor.clone(), tensor.data_ptr()) for name, tensor in model.state_dict().items()]
    return [tensors, [module.training for module in model.modules()], [p.grad for p in model.parameters()]]


def assert_as_before(model: ConvMixer, before: list[Any]) -> None:
    tensors, modes, grads = state_of(model)
    for (name, tensor, address), (_, other, other_address) in zip(tensors, before[0], strict=True):
        assert torch.equal(tensor, other), name
        assert address == other_address, name
    assert (modes, grads) == (before[1], before[2])


def tried(
    model: ConvMixer, workload: Workload, execution: Any, said: list[str], frozen: bool = False
) -> tuple[nn.Module, str]:
    attempt = attempts("graph [erf=long]", workload, execution, said.append)
    network = build_tried(
        attempt,
        model,
        lambda network: try_training(network, model, workload, lambda net: training_mode(net, model, frozen)),
    )
    return network, attempt.backend.full_name


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("execution", ["auto", "fused"])
@pytest.mark.parametrize("failing", FAULTS)
def test_a_graph_that_fails_runs_without_one(
    small_model: MakeModel,
    workload_of: MakeWorkload,
    offer: Callable[..., None],
    failing: type[Right],
    execution: str,
    frozen: bool,
) -> None:
    offer(failing, Right)
    model = small_model().train()
    said: list[str] = []
    if frozen:
        model.requires_grad_(False)
        model.head.requires_grad_(True)
    before = state_of(model)
    network, name = tried(model, workload_of(model, training=True), execution, said, frozen)
    assert type(network) is Right
    # The forms that were measured are kept.
    assert name == "fused [erf=long]"
    assert said == [f"execution: graph [erf=long] failed ({FAULTS[failing]}); running fused [erf=long]"]
    assert_as_before(model, before)


@pytest.mark.parametrize("failing", FAULTS)
def test_then_auto_runs_eager(
    small_model: MakeModel, workload_of: MakeWorkload, offer: Callable[..., None], failing: type[Right]
) -> None:
    offer(FailsForward, failing)
    model = small_model().train()
    said: list[str] = []
    before = state_of(model)
    network, name = tried(model, workload_of(model, training=True), "auto", said)
    assert network is model
    assert name == "eager, channels_last"
    assert said[1:] == [f"execution: fused [erf=long] failed ({FAULTS[failing]}); running eager"]
    assert_as_before(model, before)


@pytest.mark.parametrize("failing", FAULTS)
def test_but_not_where_it_was_asked_for(
    small_model: MakeModel, workload_of: MakeWorkload, offer: Callable[..., None], failing: type[Right]
) -> None:
    offer(FailsForward, failing)
    model = small_model().train()
    before = state_of(model)
    with pytest.raises(UserError) as refusal:
        tried(model, workload_of(model, training=True), "fused", [])
    assert refusal.value.exit_code == 1
    assert str(refusal.value) == (
        f"--execution: fused [erf=long] failed ({FAULTS[failing]}); "
        "leave the option out to run the fastest backend that does work"
    )
    assert_as_before(model, before)


@pytest.mark.parametrize("greedy", [NoMemory, NoMemoryOnACpu])
def test_of_too_little_memory_no_backend_is_to_blame(
    small_model: MakeModel, workload_of: MakeWorkload, offer: Callable[..., None], greedy: type[Right]
) -> None:
    offer(greedy, Right)
    model = small_model().train()
    said: list[str] = []
    before = state_of(model)
    with pytest.raises(RuntimeError, match="memory"):
        tried(model, workload_of(model, training=True), "auto", said)
    assert said == []
    assert_as_before(model, before)


def test_a_failure_of_one_process_is_that_of_all(
    small_model: MakeModel, workload_of: MakeWorkload, offer: Callable[..., None]
) -> None:
    offer(Right, Right)
    model, answers = small_model().train(), iter(["RuntimeError: elsewhere", None])
    said: list[str] = []
    attempt = attempts("graph", workload_of(model, training=True), "auto", said.append)
    build_tried(attempt, model, lambda network: None, lambda why: next(answers))
    assert attempt.backend.name == "fused"
    assert said == ["execution: graph failed (RuntimeError: elsewhere); running fused"]


def test_a_trial_trains_in_the_mode_of_the_run(small_model: MakeModel, workload_of: MakeWorkload) -> None:
    model, seen = small_model().eval(), []

    class Watching(Right):
        def forward(self, images: Tensor) -> Tensor:
            seen.append((images.shape, model.training, model.blocks.training, model.head.training))
            return super().forward(images)

    workload = workload_of(model, training=True)
    generator = torch.get_rng_state()
    try_training(Watching(model), model, workload, lambda network: training_mode(network, model, frozen=True))
    assert seen == [((4, 3, 16, 16), True, False, True)]
    assert not any(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize("execution", ["auto", "fused"])
def test_inference_takes_the_same_backend_at_its_first_call(
    small_model: MakeModel, workload_of: MakeWorkload, offer: Callable[..., None], execution: Any
) -> None:
    offer(FailsForward, Right)
    model, images = small_model(), torch.randn(2, 3, 16, 16)
    said: list[str] = []
    network = build_network("graph", model, workload_of(model), execution, said.append)
    for _ in range(2):
        assert torch.equal(network(images), model(images))
    assert said == ["execution: graph failed (RuntimeError: no forward pass); running fused"]
    offer(CannotBeBuilt, FailsForward)
    if execution == "auto":
        network = build_network("graph", model, workload_of(model), execution, said.append)
        assert torch.equal(network(images), model(images))
        assert said[1:] == [
            "execution: graph failed (ImportError: no such library); running fused",
            "execution: fused failed (RuntimeError: no forward pass); running eager",
        ]
    else:
        with pytest.raises(UserError, match=r"fused failed .RuntimeError: no forward pass.; leave the option out"):
            build_network("graph", model, workload_of(model), execution, said.append)(images)


def test_an_evaluation_between_steps_never_ends_the_run(
    small_model: MakeModel, workload_of: MakeWorkload, offer: Callable[..., None]
) -> None:
    offer(NoMemory, FailsForward)
    model, images = small_model(), torch.randn(2, 3, 16, 16)
    said: list[str] = []
    layout = copy.deepcopy([p.stride() for p in model.parameters()])
    network = evaluation_network("graph", model, workload_of(model), said.append)
    assert torch.equal(network(images), model(images))
    assert said == [
        "evaluation: graph failed (OutOfMemoryError: CUDA out of memory); running fused",
        "evaluation: fused failed (RuntimeError: no forward pass); running eager",
    ]
    assert network.backend.full_name == "eager"
    assert [p.stride() for p in model.parameters()] == layout


def test_full_names(small_model: MakeModel, workload_of: MakeWorkload, offer: Callable[..., None]) -> None:
    offer(Right, Right)
    model = small_model()
    workload = workload_of(model, training=True)
    found = registry.backends_for(workload)

    def name(text: str) -> str | None:
        backend = registry.find_backend(text, found, workload)
        return None if backend is None else backend.full_name

    for text in ("eager, channels_last", "fused", "fused [keep=mixed erf=long]"):
        assert name(text) == text
    # Another version's plan, a plan where none can be, and a backend that is not there.
    assert [name(text) for text in ("fused [speed=great]", "eager, channels_last [erf=long]", "slow")] == [None] * 3
    # What the backward pass finds is the workload's to say.
    assert name("fused [keep=inputs]") == "fused"
