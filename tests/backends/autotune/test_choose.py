"""The choice: what is measured when, what is kept, what is refused, and what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.backends.autotune.test_fallback import Right
from tests.backends.conftest import EAGER, MakeModel, MakeWorkload, backend
from torch import nn

from convmixer.arch import parse_arch
from convmixer.backends import registry as backends
from convmixer.backends.autotune import cache, choose
from convmixer.backends.autotune.benchmark import Timing, benchmark
from convmixer.backends.autotune.choose import build_network, choose_backend, choose_network
from convmixer.backends.registry import Backend, backends_for, default_name
from convmixer.backends.workload import Workload
from convmixer.config.execution import Execution
from convmixer.errors import UserError
from convmixer.model import ConvMixer

LONG = 10**9


class Scaled(nn.Module):
    """The model, its logits times a factor: 1 is right, all else is wrong."""

    def __init__(self, model: ConvMixer, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.factor * self.model(images)


class Failing(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no C++ compiler\nand a long story")


RIGHT = backend("right", lambda model: Scaled(model, 1.0))
WRONG = backend("wrong", lambda model: Scaled(model, 1.01))
NOT_A_NUMBER = backend("nan", lambda model: Scaled(model, float("nan")))
BROKEN = backend("broken", lambda model: Failing())


@pytest.fixture(autouse=True)
def _processor_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_bf16_units", lambda: False)


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the backends that there are."""
    return lambda *offered: monkeypatch.setattr(backends, "BACKENDS", offered)


@pytest.fixture
def timings(monkeypatch: pytest.MonkeyPatch) -> dict[str, Timing]:
    """Measured times that the test lays down, in place of the clock; `measured` lists what was asked for."""
    laid_down: dict[str, Timing] = {}
    monkeypatch.setattr(
        choose, "benchmark", lambda backends, *_: {backend.name: laid_down[backend.name] for backend in backends}
    )
    return laid_down


def test_a_wrong_answer_is_refused_and_logged(small_model: MakeModel, workload_of: MakeWorkload) -> None:
    model = small_model()
    found = benchmark([EAGER, RIGHT, WRONG, NOT_A_NUMBER], model, workload_of(model), 0.0)
    assert [found[name].failure for name in ("eager, channels_last", "right")] == [None, None]
    assert found["wrong"].failure == "its logits are 1.0e-02 off, 1.0e-04 is allowed"
    assert "nan off" in str(found["nan"].failure)
    assert found["wrong"].total(1) == float("inf")


def test_wrong_gradients_are_refused(small_model: MakeModel, workload_of: MakeWorkload) -> None:
    class HalfGradient(Right):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = super().forward(images)
            return logits.detach() + 0.5 * (logits - logits.detach())

    model = small_model().train()
    half = backend("half", HalfGradient)
    found = benchmark([EAGER, RIGHT, half], model, workload_of(model, training=True), 0.0)
    assert found["right"].failure is None
    assert found["half"].failure == "its gradients are 5.0e-01 off, 2.0e-02 is allowed"


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_our_backends_on_the_cpu_are_right(
    small_model: MakeModel, workload_of: MakeWorkload, training: bool, dtype: torch.dtype
) -> None:
    model = small_model(kernel_size=3).train(training)
    task = workload_of(model, training=training, dtype=dtype)
    offered = [one for one in backends_for(task) if one.kind != "compile"]
    kinds = [one.kind for one in offered]
    assert kinds[:3] == ["eager", "eager", "fused"]
    # OpenVINO is offered where it is installed, in bf16 where the processor has it.
    assert set(kinds[3:]) <= (set() if training else {"openvino"})
    found = benchmark(offered, model, task, 0.0)
    assert {name: timing.failure for name, timing in found.items()} == {one.name: None for one in offered}


def test_measuring_leaves_the_model_as_it_is(small_model: MakeModel, workload_of: MakeWorkload) -> None:
    model = small_model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    benchmark(backends_for(workload_of(model, training=True))[:3], model, workload_of(model, training=True), 0.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert model.stem.conv.weight.is_contiguous()


def test_a_long_workload_takes_the_fastest_right_backend(
    small_model: MakeModel, workload_of: MakeWorkload, offer: Callable[..., None], timings: dict[str, Timing]
) -> None:
    offer(EAGER, RIGHT, WRONG, BROKEN)
    timings |= {
        EAGER.name: Timing(0.2, 0.1),
        "right": Timing(0.05, 3.0),
        "wrong": Timing(failure="its logits are 1.0e-02 off, 1.0e-04 is allowed"),
        "broken": Timing(failure="RuntimeError: no C++ compiler"),
    }
    model = small_model()
    said: list[str] = []
    assert choose_backend(model, workload_of(model), LONG, say=said.append) == "right"
    assert said == [
        "execution: timing 4 backends",
        "execution: not wrong: its logits are 1.0e-02 off, 1.0e-04 is allowed",
        "execution: not broken: RuntimeError: no C++ compiler",
        "execution: right, 4.0 times eager (20 img/s)",
    ]


def test_bf16_is_offered_and_logged(
    small_model: MakeModel,
    workload_of: MakeWorkload,
    offer: Callable[..., None],
    timings: dict[str, Timing],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choose, "has_bf16_units", lambda: True)
    offer(EAGER, RIGHT)
    timings |= {EAGER.name: Timing(0.2, 0.1), "right": Timing(0.1, 0.1)}
    model = small_model()
    in_fp32: list[str] = []
    in_bf16: list[str] = []
    choose_backend(model, workload_of(model), LONG, say=in_fp32.append)
    choose_backend(model, workload_of(model, dtype=torch.bfloat16), LONG, say=in_bf16.append)
    assert in_fp32[-1] == "execution: this processor has matrix units for bf16; --amp_level O1 uses them"
    assert in_bf16[-1] == "execution: right in bf16, 2.0 times eager (10 img/s)"


def test_building_counts(
    small_model: MakeModel, workload_of: MakeWorkload, offer: Callable[..., None], timings: dict[str, Timing]
) -> None:
    offer(EAGER, RIGHT)
    timings |= {EAGER.name: Timing(1e-6, 0.0), "right": Timing(0.9e-6, 1000.0)}
    model = small_model()
    # A tenth of a microsecond is won with every image: the thousand seconds come back after 10^10 of them.
    assert choose_backend(model, workload_of(model), 9 * 10**9) == EAGER.name
    assert choose_backend(model, workload_of(model), 11 * 10**9) == "right"


def test_short_workloads_are_not_measured(
    small_model: MakeModel, workload_of: MakeWorkload, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a short workload was measured")

    monkeypatch.setattr(choose, "benchmark", never)
    model = small_model()
    said: list[str] = []
    assert choose_network(model, workload_of(model), 1, say=said.append) is model
    big = replace(workload_of(model), arch=small_model("convmixer_64_4").arch, image_size=32)
    assert choose_backend(model, big, 500, say=said.append) == default_name(big)
    assert said == []
    assert not (tmp_path / "cache").exists()


def test_operations_of_an_image_by_hand() -> None:
    # 224 / 7 = 32: 1024 positions; stem 768 * 3 * 49, a block 768 * 768 + 768 * 49; times two; thrice to train.
    task = Workload(parse_arch("convmixer_768_32"), 224, 8, torch.float32, False, torch.device("cpu"))
    by_hand = 2 * 1024 * (768 * 3 * 49 + 32 * (768 * 768 + 768 * 49))
    assert task.flops_per_image == by_hand == 41_352_167_424
    assert replace(task, training=True).flops_per_image == 3 * by_hand
    assert task.nominal_seconds(100) == pytest.approx(41.3522, rel=1e-5)


def test_compile_is_tried_for_very_long_workloads_only(
    small_model: MakeModel, workload_of: MakeWorkload, offer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[list[str]] = []

    def fake(backends: list[Backend], *_: object) -> dict[str, Timing]:
        tried.append([backend.name for backend in backends])
        return {backend.name: Timing(1.0, 1.0) for backend in backends}

    monkeypatch.setattr(choose, "benchmark", fake)
    offer(EAGER, RIGHT, backend("compiled", lambda model: model, "compile"))
    model = small_model()
    task = workload_of(model)
    minute = int(60 / task.nominal_seconds(1))
    choose_backend(model, task, 2 * minute)
    choose_backend(model, task, 60 * minute)
    assert tried == [[EAGER.name, "right"], [EAGER.name, "right", "compiled"]]


def test_times_are_kept_and_used_again(
    small_model: MakeModel, workload_of: MakeWorkload, offer: Callable[..., None]
) -> None:
    offer(EAGER, RIGHT)
    model = small_model()
    first: list[str] = []
    second: list[str] = []
    name = choose_backend(model, workload_of(model), LONG, say=first.append)
    assert choose_backend(model, workload_of(model), LONG, say=second.append) == name
    assert first[0] == "execution: timing 2 backends"
    assert second == first[-1:]
    (path,) = cache.cache_folder().glob("*.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["workload"]["versions"]["torch"] == torch.__version__
    assert sorted(content["timings"]) == [EAGER.name, "right"]


@pytest.mark.parametrize(
    "change", [{"batch_size": 3}, {"dtype": torch.bfloat16}, {"training": True}, {"image_size": 8}]
)
def test_another_workload_is_measured_anew(
    small_model: MakeModel, workload_of: MakeWorkload, change: dict[str, Any]
) -> None:
    task = workload_of(small_model())
    cache.save(task, {"right": Timing(0.5, 1.0)})
    assert cache.load(task) == {"right": Timing(0.5, 1.0)}
    assert cache.load(replace(task, **change)) == {}


def test_another_version_of_torch_is_measured_anew(
    small_model: MakeModel, workload_of: MakeWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = workload_of(small_model())
    cache.save(task, {"right": Timing(0.5, 1.0)})
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    assert cache.load(task) == {}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"workload": 1}', '{"workload": {}, "timings": 3}'])
def test_a_damaged_cache_is_no_cache(small_model: MakeModel, workload_of: MakeWorkload, content: str) -> None:
    task = workload_of(small_model())
    cache.save(task, {"right": Timing(0.5, 1.0), "broken": Timing(failure="RuntimeError: no")})
    (path,) = cache.cache_folder().glob("*.json")
    path.write_text(content, encoding="utf-8")
    assert cache.load(task) == {}


def test_a_cache_that_cannot_be_written_stops_nothing(
    small_model: MakeModel, workload_of: MakeWorkload, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache.save(workload_of(small_model()), {"right": Timing(0.5, 1.0)})
    assert cache.load(workload_of(small_model())) == {}


def test_a_backend_of_auto_that_fails_at_its_first_call_falls_back(
    small_model: MakeModel, workload_of: MakeWorkload, offer: Callable[..., None]
) -> None:
    offer(EAGER, BROKEN)
    model, images = small_model(), torch.randn(2, 3, 16, 16)
    said: list[str] = []
    network = build_network("broken", model, workload_of(model), "auto", said.append)
    assert torch.equal(network(images), model(images))
    assert torch.equal(network(images), model(images))
    assert said == ["execution: broken failed (RuntimeError: no C++ compiler); running eager"]


def cannot(model: ConvMixer) -> nn.Module:
    raise ImportError("no such library")


def test_a_backend_of_auto_that_cannot_be_built_falls_back(
    small_model: MakeModel, workload_of: MakeWorkload, offer: Callable[..., None]
) -> None:
    offer(EAGER, backend("absent", cannot))
    model = small_model()
    said: list[str] = []
    assert build_network("absent", model, workload_of(model), "auto", said.append) is model
    assert said[-1] == "execution: absent failed (ImportError: no such library); running eager"


def test_a_backend_that_was_asked_for_is_not_left_when_it_fails(
    small_model: MakeModel, workload_of: MakeWorkload, offer: Callable[..., None]
) -> None:
    model, images = small_model(), torch.randn(2, 3, 16, 16)
    offer(EAGER, BROKEN)
    network = choose_network(model, workload_of(model), 1, "fused", lambda _: None)
    with pytest.raises(
        UserError, match=r"^--execution: broken failed \(RuntimeError: no C\+\+ compiler\); "
    ) as refusal:
        network(images)
    assert refusal.value.exit_code == 1
    offer(EAGER, backend("absent", cannot))
    with pytest.raises(UserError, match=r"absent failed .ImportError: no such library") as refusal:
        choose_network(model, workload_of(model), 1, "fused", lambda _: None)
    assert refusal.value.exit_code == 1


def test_none_of_those_asked_for_passes_the_measurement(
    small_model: MakeModel, workload_of: MakeWorkload, offer: Callable[..., None]
) -> None:
    offer(EAGER, WRONG, NOT_A_NUMBER)
    model = small_model()
    with pytest.raises(UserError, match=r"wrong failed .its logits are 1.0e-02 off") as refusal:
        choose_backend(model, workload_of(model), LONG, "fused", lambda _: None)
    assert refusal.value.exit_code == 1


@pytest.mark.parametrize("execution", ["fused", "compile", "openvino"])
@pytest.mark.parametrize("images", [0, LONG])
def test_nothing_of_the_kind_that_was_asked_for(
    small_model: MakeModel, workload_of: MakeWorkload, offer: Callable[..., None], execution: Execution, images: int
) -> None:
    offer(EAGER)
    model = small_model()
    said: list[str] = []
    message = f"^--execution: there is nothing {execution} for inference of this network on cpu; it needs "
    with pytest.raises(UserError, match=message) as refusal:
        choose_network(model, workload_of(model), images, execution, said.append)
    assert (refusal.value.exit_code, said) == (2, [])
    assert choose_backend(model, workload_of(model), 0, "auto", said.append) == EAGER.name


@pytest.mark.parametrize("variable", ["", "no-such-compiler"])
def test_without_a_compiler_there_is_no_compile(
    small_model: MakeModel, workload_of: MakeWorkload, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", variable)
    model = small_model()
    assert {one.kind for one in backends_for(workload_of(model))} >= {"eager", "fused"}
    with pytest.raises(UserError, match=r"nothing compile .* it needs a C.. compiler on a CPU"):
        choose_backend(model, workload_of(model), 1, "compile", lambda _: None)


def test_compiled_inference_takes_batches_of_any_size(
    small_model: MakeModel, workload_of: MakeWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def compiled(model: ConvMixer, **_: object) -> Callable[[torch.Tensor], torch.Tensor]:
        def call(images: torch.Tensor) -> torch.Tensor:
            seen.append(len(images))
            return model(images)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    model, images = small_model(), torch.randn(6, 3, 16, 16)
    network = choose_network(model, workload_of(model, batch=4), 1, "compile", lambda _: None)
    torch.testing.assert_close(network(images), model(images))
    assert seen == [4, 4]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("training", [False, True])
def test_torch_compile_itself_is_right(small_model: MakeModel, workload_of: MakeWorkload, training: bool) -> None:
    model = small_model().train(training)
    task = workload_of(model, training=training)
    offered = [one for one in backends_for(task) if one.kind == "compile"]
    found = benchmark([backends_for(task)[0], *offered], model, task, 0.0)
    assert [found[one.name].failure for one in offered] == [None]


def test_tuning_batch_is_bounded_on_a_cpu_only(monkeypatch: pytest.MonkeyPatch, small_model: MakeModel) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    arch = parse_arch("convmixer_768_32")
    task = Workload(arch, 224, 256, torch.float32, False, torch.device("cpu"))
    assert task.for_tuning(1.0).batch_size == 4
    assert task.for_tuning(8.3).batch_size == 20
    assert replace(task, device=torch.device("cuda")).for_tuning(1.0).batch_size == 256
