"""The steps of `gpu_session.py`: what each runs, in full on a GPU and in small form on a CPU, and what it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from session_processes import Command

from convmixer import arch

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
VARIANTS = tuple(arch.VARIANTS)
SMALL = "convmixer_8_2_ks3_p2"
INTERPRETED = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
# The tests need no plugin, and a machine may have any.
TESTED = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"}
# The contenders of a training step: who trains today, in both layouts, and our two backends. Compiled ones take
# minutes.
CONTENDERS = ("timm eager NCHW", "timm eager channels_last", "ours fused", "ours fused, CUDA graph")
STEP = ("pydantic", "safetensors", "simplejpeg")  # what the test of a training step needs
# The tests that only a GPU can fail; those of the graphs first.
TESTS = (
    "tests/backends/test_cuda_graph.py",
    "tests/kernels/device",
    "tests/kernels/test_fallback.py",
    "tests/kernels/test_compiles.py",
    # A name in a file that cannot be imported ends pytest before any test.
    *(["tests/training/test_non_finite.py::test_no_step_waits_for_a_gpu"] if all(map(find_spec, STEP)) else []),
)
FAST = "not slow and not mindspore"
CORES = os.cpu_count() or 1
TESTERS = 16 if CORES >= 16 else 8  # they compile most of their time, each on a core
PROGRAM = ("pydantic", "tensorboardX", "safetensors", "simplejpeg")  # what `train` needs beside torch


@dataclass(frozen=True)
class Session:
    """Where the steps work: results and logs are kept, `scratch` is not; `cifar10` holds cifar-10-batches-py."""

    results: Path
    scratch: Path
    cifar10: Path | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class Step:
    """`commands(session)`: what is run, `at_once` at a time; or why it cannot be. `needs`: packages beside torch."""

    name: str
    minutes: float
    commands: Callable[[Session], list[Command] | str]
    needs: tuple[str, ...] = ()
    at_once: int = 1

    def missing(self) -> list[str]:
        """The packages of `needs` that are not installed."""
        return [package for package in self.needs if find_spec(package) is None]


def _script(name: str, script: str, *words: object, interpreted: bool = False, threads: int | None = None) -> Command:
    environment = dict(INTERPRETED) if interpreted else {}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    return Command(name, [str(HERE / script), *map(str, words)], environment)


def versions(session: Session) -> list[Command]:
    small = ("--device", "cpu", "--elements", 1000, "--side", 64) if session.dry_run else ()
    return [_script("versions", "machine.py", "--output", session.results / "machine.json", *small)]


def checks(session: Session) -> list[Command]:
    """Networks and kernels in parallel processes, which together compile whatever the later steps run."""
    found = []
    small: tuple[object, ...]
    words: tuple[object, ...]
    for variant in VARIANTS[:1] if session.dry_run else VARIANTS:
        for precision in ("fp32",) if session.dry_run else ("fp32", "bf16"):
            name = f"check_{variant}_{precision}"
            small = ("--device", "cpu", "--dim", 2, "--size", 28, "--batch", 2, "--plans", 1) if session.dry_run else ()
            output = ("--output", session.results / f"{name}.json")
            # fp32 is for the kernels' logic, which plans share but for the products.
            plans = ("--plans", 2) if precision == "fp32" else ()
            words = ("--variants", variant, "--precisions", precision, *plans, *output, *small)
            found.append(_script(name, "network_check.py", *words, interpreted=session.dry_run, threads=1))
        for share in range(1 if session.dry_run else 3):
            name = f"check_{variant}_kernels_{share}"
            small = ("--device", "cpu", "--share", 1, 12) if session.dry_run else ("--share", share, 3, "--candidates")
            output = ("--output", session.results / f"{name}.json")
            words = ("--check_only", "--variants", variant, *output, *small)
            found.append(_script(name, "gpu_kernels.py", *words, interpreted=session.dry_run, threads=1))
    return found


def gpu_tests(session: Session) -> list[Command] | str:
    return _tests(session, FAST)


def slow_gpu_tests(session: Session) -> list[Command] | str:
    found = _tests(session, FAST if session.dry_run else "slow and not mindspore")
    if isinstance(found, str):
        return found
    return [Command(f"slow_{command.name}", command.words, command.environment) for command in found]


def _tests(session: Session, mark: str) -> list[Command] | str:
    """Test by test in turn over some processes (pytest-xdist may not be there), those of the graphs first in each."""
    options = ["-m", "pytest", "-p", "no:cacheprovider", "-W", "default"]
    if session.dry_run:
        words = [*options, "-q", "tests/kernels/device/test_activations.py", "-k", "relu", "-m", mark]
        return [Command("tests_0", words, TESTED | INTERPRETED)]
    listed = subprocess.run(
        [sys.executable, *options, "--collect-only", "-q", "-m", mark, *TESTS],
        cwd=REPOSITORY,
        env={**os.environ, **TESTED},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    names = [line for line in listed.stdout.splitlines() if line.startswith("tests/") and "::" in line]
    if not names:
        return f"no test was found: {(listed.stdout + listed.stderr).strip()[-200:]}"
    shares = [names[at::TESTERS] for at in range(TESTERS)]
    # By name, so that a process that must be killed leaves in its log what it had done.
    words = [*options, "-v", "--tb=short", "-m", mark, "--durations", "5", "--durations-min", "2"]
    return [Command(f"tests_{at}", [*words, *share], TESTED) for at, share in enumerate(shares) if share]


def _speed(session: Session, part: str, *words: object) -> list[Command]:
    output = ("--output", session.results, "--name", f"gpu_{part}")
    small: tuple[object, ...] = ()
    if session.dry_run:
        small = ("--device", "cpu", "--variants", SMALL, "--batch", 2, "--size", 8, "--precisions", "bf16")
    return [_script(part, "model_speed.py", "--parts", part, *output, *words, *small)]


def training(session: Session) -> list[Command]:
    return _speed(session, "training", "--rounds", 3, "--seconds", 6, "--only", *CONTENDERS)


def tuned(session: Session) -> list[Command]:
    """Training by the plan that this machine's times choose, which is made here and in no cache."""
    names = ["timm eager NCHW", "ours fused", "ours fused, tuned", "ours fused, tuned, CUDA graph"]
    (command,) = _speed(session, "training", "--rounds", 3, "--seconds", 6, "--only", *names, "--name", "gpu_tuned")
    return [Command("tuned", command.words, command.environment)]


def inference(session: Session) -> list[Command]:
    return _speed(session, "inference", "--rounds", 3, "--seconds", 6, "--only", *CONTENDERS)


def compiled(session: Session) -> list[Command]:
    """timm's module by torch.compile, which on some settings is the best of timm's."""
    contenders = ["timm eager NCHW", "ours fused"]
    if not session.dry_run:
        contenders[1:1] = ["timm compiled NCHW", "timm compiled channels_last"]
    words = ("--rounds", 3, "--seconds", 6, "--only", *contenders)
    (command,) = _speed(session, "training", *words, "--name", "gpu_training_compiled")
    return [Command("compiled", command.words, command.environment)]


def profile(session: Session) -> list[Command]:
    small = ("--device", "cpu", "--variants", SMALL, "--batch", 2, "--size", 8) if session.dry_run else ()
    return [_script("profile", "network_profile.py", "--output", session.results, *small)]


def kernels(session: Session) -> list[Command]:
    output = ("--output", session.results / "gpu_kernels.json")
    if session.dry_run:
        small = ("--device", "cpu", "--variants", VARIANTS[0], "--share", 1, 12, "--batch", 2, "--plan", 3)
        return [_script("kernels", "gpu_kernels.py", *small, *output, interpreted=True)]
    return [_script("kernels", "gpu_kernels.py", "--plan", 25, *output)]


def candidates(session: Session) -> list[Command]:
    """Every form of every pass, against its floor; the plan's step takes them in groups, as they are used."""
    if session.dry_run:
        (command,) = kernels(session)
        return [Command("candidates", command.words, command.environment)]
    output = ("--output", session.results / "gpu_candidates.json")
    return [_script("candidates", "gpu_kernels.py", "--candidates", *output)]


def batch(session: Session) -> list[Command]:
    small: tuple[object, ...] = ()
    if session.dry_run:
        small = ("--device", "cpu", "--variants", SMALL, "--size", 8, "--most", 2, "--kinds", "fused recompute")
    return [_script("batch", "max_batch.py", "--output", session.results / "max_batch.json", *small)]


def cifar10(session: Session) -> list[Command] | str:
    """The authors' recipe; the score is that of the last epoch, and one evaluation is enough."""
    runs = [f"--{kind}_root_dir={session.scratch / kind}" for kind in ("ckpt", "best_ckpt")]
    runs.append(f"--summary_root_dir={session.results / 'cifar10'}")
    recipe: list[str] = ["--ckpt_keep_num=1", "--execution=fused", *runs]
    if session.dry_run:
        recipe += ["--config=digits", "--arch=convmixer_8_2", "--epochs=1", "--eval_every=1", "--execution=auto"]
    elif session.cifar10 is None:
        return "it needs --cifar10 FOLDER, which holds cifar-10-batches-py"
    else:
        recipe += ["--config=cifar10_256_8", f"--data_url={session.cifar10}", "--eval_every=25"]
    return [Command("cifar10", [str(REPOSITORY / "train.py"), *recipe])]


def curves(session: Session) -> list[Command] | str:
    """Whether the fast backend trains as the plain one does; seconds of each run."""
    words: tuple[object, ...]
    output = ("--output", session.results, "--name", "curves")
    if session.dry_run:
        words = ("digits", "--seeds", 0, "--executions", "eager", *output, "--epochs=1", "--train_num_samples=64")
        return [_script("curves", "training_curves.py", *words)]
    if session.cifar10 is None:
        return "it needs --cifar10 FOLDER, which holds cifar-10-batches-py"
    words = ("cifar10", "--data_url", session.cifar10, "--amp_level", "O1", *output)
    return [_script("curves", "training_curves.py", *words)]


STEPS: Sequence[Step] = (
    Step("versions", 0.5, versions),
    Step("checks", 2.0, checks, at_once=CORES),
    Step("tests", 2.0, gpu_tests, ("pytest",), at_once=TESTERS),
    Step("training", 2.0, training, ("timm",)),
    Step("profile", 1.0, profile),
    Step("kernels", 2.0, kernels),
    Step("inference", 2.0, inference, ("timm",)),
    Step("tuned", 5.0, tuned, ("timm",)),
    Step("candidates", 5.0, candidates),
    Step("batch", 9.0, batch),
    Step("slow_tests", 6.0, slow_gpu_tests, ("pytest",), at_once=TESTERS),
    Step("compiled", 8.0, compiled, ("timm",)),
    Step("cifar10", 5.0, cifar10, PROGRAM),
    Step("curves", 9.0, curves, PROGRAM),
)
# Those of the first ten minutes.
FIRST = ("versions", "checks", "tests", "training", "profile", "kernels")
