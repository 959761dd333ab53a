"""CUDA graphs: the graph itself on a GPU; all around it, with a stand-in that has a graph's fixed memory, anywhere."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from tests.backends.conftest import EAGER, MakeModel, MakeWorkload, backend
from tests.networks import Operations
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from convmixer.backends import cuda_graph as graphs
from convmixer.backends import registry
from convmixer.backends.autotune.benchmark import benchmark
from convmixer.backends.autotune.choose import build_network
from convmixer.backends.cuda_graph import GraphedConvMixer
from convmixer.backends.registry import Backend, backends_for
from convmixer.backends.workload import Workload
from convmixer.kernels import limits
from convmixer.model import ConvMixer

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """cuDNN's convolutions in fp32 itself, and each time by the same algorithm: a graph is compared by its numbers."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def plain(model: ConvMixer, images: Tensor) -> Tensor:
    logits: Tensor = model(images)
    return logits


class Graph(Operations):
    """In place of torch.cuda.CUDAGraph: what was recorded is done again, with its results in the same memory."""

    def replay(self) -> None:
        with torch.inference_mode():  # which may write to all tensors
            for func, args, kwargs, results in self.calls:
                for old, new in zip(tree_leaves(results), tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(old, Tensor):
                        old.copy_(new)


@contextmanager
def capture(cuda_graph: Graph, pool: object, stream: object, capture_error_mode: str) -> Iterator[None]:
    """In place of torch.cuda.graph, with the arguments that torch 2.11 has."""
    assert capture_error_mode == "thread_local"
    assert not (torch.is_autocast_enabled("cpu") and torch.is_autocast_cache_enabled())
    with cuda_graph:
        yield


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Records the shapes of the images that graphs were made for."""
    shapes: list[tuple[int, ...]] = []
    record = graphs.recorded

    def counted(run: Callable[[Tensor], Tensor], images: Tensor, leaves: list[Tensor]) -> graphs.Recording:
        shapes.append(tuple(images.shape))
        return record(run, images, leaves)

    monkeypatch.setattr(graphs, "recorded", counted)
    for name, value in (
        ("Stream", object),
        ("stream", lambda stream: nullcontext()),
        ("synchronize", lambda: None),
        ("graph_pool_handle", object),
        ("CUDAGraph", Graph),
        ("graph", capture),
    ):
        monkeypatch.setattr(torch.cuda, name, value)
    return shapes


def train(network: nn.Module, model: ConvMixer, images: Tensor, accumulate: int, autocast: Any) -> list[Tensor]:
    """Some steps on ever new images, an update between; gives all losses, taken at the end."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for step in images.split(accumulate):
        optimizer.zero_grad(set_to_none=True)
        for batch in step:
            with autocast():
                logits = network(batch)
            labels = torch.arange(len(batch), device=batch.device) % 7
            loss = nn.functional.cross_entropy(logits.float(), labels) / accumulate
            loss.backward()
            losses.append(loss.detach())
        optimizer.step()
    return [*losses, logits.detach()]


def assert_trains_alike(
    model: ConvMixer, workload: Workload, function: Any, other: Any, accumulate: int, rtol: float
) -> None:
    twin = copy.deepcopy(model)
    torch.manual_seed(1)
    images = torch.randn(4 * accumulate, *(workload.batch_size, 3, 16, 16), device=workload.device)
    graphed = train(GraphedConvMixer(model, function, workload), model, images, accumulate, workload.autocast)
    right = train(lambda batch: other(twin, batch), twin, images, accumulate, workload.autocast)  # type: ignore[arg-type]
    torch.testing.assert_close(graphed, right, rtol=rtol, atol=rtol)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, twin.state_dict()[name], rtol=rtol, atol=rtol, msg=name)


@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_trains_as_the_function(
    small_model: MakeModel,
    workload_of: MakeWorkload,
    stand_in: list[tuple[int, ...]],
    accumulate: int,
    frozen: bool,
    dtype: torch.dtype,
) -> None:
    model = small_model().train()
    if frozen:
        model.requires_grad_(False)
        model.head.requires_grad_(True)
    assert_trains_alike(model, workload_of(model, True, dtype), plain, plain, accumulate, rtol=0)
    assert stand_in == [(4, 3, 16, 16)]


def test_it_trains_as_the_function_that_recomputes(
    small_model: MakeModel, workload_of: MakeWorkload, stand_in: list[tuple[int, ...]]
) -> None:
    # Its backward pass calls the blocks again, when the stand-ins for the parameters are gone.
    model = small_model().train()
    model.recompute = True
    assert_trains_alike(model, workload_of(model, True), plain, plain, 2, rtol=0)
    assert stand_in == [(4, 3, 16, 16)]


def test_recording_leaves_the_model_as_it_was(
    small_model: MakeModel, workload_of: MakeWorkload, stand_in: list[tuple[int, ...]]
) -> None:
    model = small_model().train()
    before = {name: (tensor.clone(), tensor.data_ptr()) for name, tensor in model.state_dict().items()}
    network = GraphedConvMixer(model, plain, workload_of(model, training=True))
    network._record(torch.randn(4, 3, 16, 16))
    assert stand_in
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name][0]), name
        assert tensor.data_ptr() == before[name][1]


def leaves_of(tensor: Tensor) -> set[Any]:
    """The leaves that the gradient of a tensor reaches."""
    waiting, seen, leaves = [tensor.grad_fn], set(), set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(node.variable)
        waiting += [following for following, _ in node.next_functions]
    return leaves


def test_no_node_of_autograd_over_a_parameter_is_alive_when_it_is_recorded(
    small_model: MakeModel, workload_of: MakeWorkload, stand_in: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would belong to another stream: recording refuses that, and what is recorded keeps its own nodes for good."""
    model = small_model().train()
    alive: list[str] = []
    recorded: set[Any] = set()
    replay, record = graphs._Replay.apply, graphs.recorded

    def marking(*arguments: Any) -> Any:
        logits = replay(*arguments)
        for node, _ in logits.grad_fn.next_functions:
            if node is not None:
                node.metadata["alias"] = True
        return logits

    def make(run: Callable[[Tensor], Tensor], images: Tensor, leaves: list[Tensor]) -> graphs.Recording:
        for name, parameter in model.named_parameters():
            # A parameter has one node, which lives as long as something that was computed with it.
            node = parameter.view_as(parameter).grad_fn.next_functions[0][0]  # type: ignore[union-attr]
            assert node is not None
            alive.extend([name] if node.metadata else [])
        recorded.update(leaves_of(run(images)))
        return record(run, images, leaves)

    monkeypatch.setattr(graphs, "recorded", make)
    monkeypatch.setattr(graphs._Replay, "apply", marking)
    logits = GraphedConvMixer(model, plain, workload_of(model, training=True))(torch.randn(4, 3, 16, 16))
    assert alive == []
    assert len(recorded) == len(list(model.parameters()))
    assert recorded.isdisjoint(model.parameters())
    assert {leaf.data_ptr() for leaf in recorded} == {p.data_ptr() for p in model.parameters()}
    assert leaves_of(logits) == set(model.parameters())


def test_other_shapes_and_the_other_mode_run_the_function(
    small_model: MakeModel, workload_of: MakeWorkload, stand_in: list[tuple[int, ...]]
) -> None:
    model = small_model().train()
    network = GraphedConvMixer(model, plain, workload_of(model, training=True))
    network(torch.randn(3, 3, 16, 16)).sum().backward()
    network(torch.randn(4, 3, 18, 18)).sum().backward()
    with torch.no_grad():
        network(torch.randn(4, 3, 16, 16))
    network.eval()
    network(torch.randn(4, 3, 16, 16))
    assert stand_in == []


def test_inference_takes_batches_of_any_size(
    small_model: MakeModel, workload_of: MakeWorkload, stand_in: list[tuple[int, ...]]
) -> None:
    model = small_model()
    network = GraphedConvMixer(model, plain, workload_of(model, batch=4)).eval()
    images = torch.randn(10, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        right = model(images)
        answers = [network(images), network(images[:1]), network(images.flip(0))]
    with torch.no_grad():
        again = network(images)
    for answer, wanted in zip([*answers, again], [right, right[:1], right.flip(0), right], strict=True):
        torch.testing.assert_close(answer, wanted)
    assert stand_in == [(4, 3, 16, 16)]
    # Another size of image, and a call that wants gradients, run the function.
    network(images)
    with torch.no_grad():
        network(torch.randn(4, 3, 18, 18))
    assert stand_in == [(4, 3, 16, 16)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="here recording works")
def test_a_recording_that_fails_falls_back(
    small_model: MakeModel, workload_of: MakeWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = Backend(
        "graph", "fused", lambda workload: True, lambda model, workload, plan: GraphedConvMixer(model, plain, workload)
    )
    monkeypatch.setattr(registry, "BACKENDS", (EAGER, graph))
    model, images = small_model().train(), torch.randn(4, 3, 16, 16)
    said: list[str] = []
    twin = copy.deepcopy(model)
    network = build_network("graph", model, workload_of(model, training=True), "auto", said.append)
    assert torch.equal(network(images), twin(images))
    assert said[0].startswith("execution: graph failed (")
    assert said[0].endswith("; running eager")
    assert all(torch.equal(one, other) for one, other in zip(model.buffers(), twin.buffers(), strict=True))
    found = benchmark([EAGER, graph], model, workload_of(model, training=True), 0.0)
    assert found["graph"].failure is not None


@pytest.mark.parametrize("training", [False, True])
def test_a_recording_that_fails_says_why(
    small_model: MakeModel,
    workload_of: MakeWorkload,
    stand_in: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
    training: bool,
) -> None:
    """An error within a recording makes its end fail too, with an error that says nothing of the first one."""
    recording: list[object] = []

    @contextmanager
    def invalidated(cuda_graph: Graph, **options: Any) -> Iterator[None]:
        recording.append(cuda_graph)
        try:
            yield
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    def function(model: ConvMixer, images: Tensor) -> Tensor:
        if recording:
            raise ValueError("what is wrong")
        return plain(model, images)

    monkeypatch.setattr(torch.cuda, "graph", invalidated)
    model = small_model().train(training)
    network = GraphedConvMixer(model, function, workload_of(model, training))
    with torch.set_grad_enabled(training), pytest.raises(ValueError, match="what is wrong"):
        network(torch.randn(4, 3, 16, 16))
    recording.clear()
    with torch.set_grad_enabled(training), pytest.raises(RuntimeError, match="during capture"):
        GraphedConvMixer(model, plain, workload_of(model, training))(torch.randn(4, 3, 16, 16))


class Counted(nn.Module):
    """A network that counts how many of its kind are alive."""

    alive = most = 0

    def __init__(self, model: ConvMixer) -> None:
        super().__init__()
        self.model = model
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)

    def __del__(self) -> None:
        Counted.alive -= 1

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


def test_a_backend_that_holds_memory_is_timed_alone(small_model: MakeModel, workload_of: MakeWorkload) -> None:
    def counted(name: str, holds: bool) -> Backend:
        return backend(name, Counted, holds_memory=holds)

    model = small_model()
    eager = backend("eager", lambda model: model, "eager")
    found = benchmark([eager, *(counted(str(i), True) for i in range(3))], model, workload_of(model), 0.0)
    assert [found[str(i)].failure for i in range(3)] == [None] * 3
    assert Counted.most == 1
    benchmark([eager, *(counted(str(i), False) for i in range(3))], model, workload_of(model), 0.0)
    assert Counted.most > 1


def test_running_out_of_memory_is_that_backends_failure(small_model: MakeModel, workload_of: MakeWorkload) -> None:
    class Greedy(nn.Module):
        """Fits in the check and in its first pass, but not in those that are timed."""

        calls = 0

        def __init__(self, model: ConvMixer, fits: int) -> None:
            super().__init__()
            self.model, self.fits = model, fits

        def forward(self, images: Tensor) -> Tensor:
            Greedy.calls += 1
            if Greedy.calls > self.fits:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40 GiB")
            return self.model(images)

    model = small_model()
    eager = backend("eager", lambda model: model, "eager")
    for fits in (0, 1, 2):
        Greedy.calls = 0
        greedy = backend("greedy", lambda model: Greedy(model, fits))  # noqa: B023
        found = benchmark([eager, greedy], model, workload_of(model), 0.0)
        assert found["greedy"].failure == "OutOfMemoryError: CUDA out of memory. Tried to allocate 40 GiB"
        assert found["greedy"].total(1) == float("inf")
        assert found["eager"].failure is None


def offered(model: ConvMixer, device: str, training: bool) -> list[str]:
    workload = Workload(model.arch, 16, 4, torch.float32, training, torch.device(device))
    return [backend.name for backend in backends_for(workload)]


@pytest.mark.parametrize(
    ("capability", "kernel_size", "there"), [((8, 0), 9, True), ((7, 5), 3, False), ((9, 0), 11, False)]
)
def test_the_kernels_are_a_backend_only_where_they_run(
    small_model: MakeModel, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], kernel_size: int, there: bool
) -> None:
    """Else their forms would be timed on a GPU that they are not for, and torch's operators run under their name."""
    monkeypatch.setattr(limits, "_TRITON", True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    model = small_model(kernel_size=kernel_size)
    for training in (True, False):
        assert [name for name in offered(model, "cuda", training) if "Triton" in name] == (
            ["fused, Triton", "fused, Triton, CUDA graph"] if there else []
        )


def test_where_the_backend_applies(small_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "fused, Triton, CUDA graph"
    offered_here = partial(offered, small_model())
    monkeypatch.setattr(registry, "reason_against", lambda *workload: None)
    assert name not in offered_here("cpu", training=True)
    assert name in offered_here("cuda", training=True)
    assert name in offered_here("cuda", training=False)
    assert offered_here("cuda", training=True).index(name) > offered_here("cuda", training=True).index("fused, Triton")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert name not in offered_here("cuda", training=True)
    assert name in offered_here("cuda", training=False)


def on_gpu(model: ConvMixer, training: bool, dtype: torch.dtype) -> tuple[ConvMixer, Workload]:
    device = torch.device("cuda")
    return model.to(device).train(training), Workload(model.arch, 16, 4, dtype, training, device)


@needs_gpu
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fused", [False, True])
def test_a_graph_trains_as_the_function(
    small_model: MakeModel, accumulate: int, dtype: torch.dtype, fused: bool
) -> None:
    from convmixer.kernels.block import fused_forward

    model, workload = on_gpu(small_model(), True, dtype)
    function = fused_forward if fused else plain
    # The same kernels; sums by atomic additions may fall in another order.
    assert_trains_alike(model, workload, function, function, accumulate, rtol=1e-3 if dtype == torch.float32 else 3e-2)


@needs_gpu
def test_a_graph_leaves_statistics_as_they_were(small_model: MakeModel) -> None:
    model, workload = on_gpu(small_model(), True, torch.float32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    network = GraphedConvMixer(model, plain, workload)
    network._record(torch.randn(4, 3, 16, 16, device="cuda"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@needs_gpu
def test_a_graph_infers_as_the_function(small_model: MakeModel) -> None:
    model, workload = on_gpu(small_model(), False, torch.float32)
    network, images = GraphedConvMixer(model, plain, workload), torch.randn(10, 3, 16, 16, device="cuda")
    with torch.inference_mode():
        for some in (images, images.flip(0), images[:1]):
            torch.testing.assert_close(network(some), model(some), rtol=1e-3, atol=1e-3)
