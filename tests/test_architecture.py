"""How the house is built: who may import whom, what runs without torch, how long a module and a function may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.project import ROOT, SRC

PACKAGE = SRC / "convmixer"

MAX_MODULE, MAX_FUNCTION = 250, 60

# What evaluation and prediction stand on: NumPy and Pillow, so that an ONNX model needs no torch.
TORCH_FREE = (
    "answers",
    "arch",
    "bulk",
    "class_activation",
    "config",
    "data",
    "errors",
    "evaluation",
    "inference",
    "inputs",
    "metrics",
    "model_evaluation",
    "model_opening",
    "optimizers",
    "packages",
    "runs",
    "run_names",
    "serve",
    "similarity",
    "test_time_augmentation",
    "packing",
    "policies",
    "prediction",
    "randomness",
    "schedules",
    "signals",
    "terminal",
    "user_cache",
    "web",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Full names of what a module imports anywhere, also within functions; `from a import b` gives a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


IMPORTS = {name: set(imported_names(tree)) for name, tree in TREES.items()}


def below(name: str, *packages: str) -> bool:
    """True for one of the packages and for what lies in them."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def reached_from(start: str) -> set[str]:
    """Modules of ours that a module imports, directly or through others."""
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        new = (IMPORTS[waiting.pop()] & MODULES.keys()) - reached
        reached |= new
        waiting += new
    return reached


def test_nothing_imports_the_command_line() -> None:
    guilty = [
        name
        for name, imports in IMPORTS.items()
        if not below(name, "convmixer.cli", "convmixer.__main__")
        and any(below(found, "convmixer.cli") for found in imports)
    ]
    assert guilty == []


@pytest.mark.parametrize(("one", "other"), [("data", "model"), ("model", "data"), ("config", "data")])
def test_parts_that_do_not_know_each_other(one: str, other: str) -> None:
    guilty = {
        name: sorted(reached)
        for name in MODULES
        if below(name, f"convmixer.{one}")
        and (reached := {found for found in reached_from(name) if below(found, f"convmixer.{other}")})
    }
    assert guilty == {}


def package_of(name: str) -> str:
    """The package directly below `convmixer`, or the module that lies there."""
    return ".".join(name.split(".")[:2])


def test_packages_do_not_import_each_other_in_a_circle() -> None:
    """Whatever is imported, for the type checker too: each can be read with those below it alone."""
    edges: dict[str, set[str]] = {package_of(name): set() for name in MODULES}
    for name, imports in IMPORTS.items():
        used = {package_of(found) for found in imports & MODULES.keys() if found != "convmixer"}
        edges[package_of(name)] |= used - {package_of(name)}
    order: list[str] = []
    while edges:
        free = {name for name, used in edges.items() if not used}
        assert free, f"a circle among {sorted(edges)}"
        order += sorted(free)
        edges = {name: used - free for name, used in edges.items() if name not in free}
    assert order.index("convmixer.errors") < order.index("convmixer.data") < order.index("convmixer.cli")


def test_the_program_needs_neither_torchvision_nor_timm() -> None:
    guilty = [name for name, found in IMPORTS.items() if any(below(module, "torchvision", "timm") for module in found)]
    assert guilty == []


def assert_runs(code: str, names: list[str]) -> None:
    """In a process of its own, with the names as its arguments."""
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        env={"PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_half_of_the_program_runs_without_torch() -> None:
    names = [name for name in MODULES if below(name, *(f"convmixer.{part}" for part in TORCH_FREE))]
    assert len(names) > len(TORCH_FREE)
    code = (
        "import importlib, sys\n"
        "sys.modules['torch'] = None\n"  # importing it raises ImportError
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
    )
    assert_runs(code, names)


def test_the_reasons_for_a_lazy_import_hold() -> None:
    """The package itself, the command line and the options are imported by --help, which must not wait for torch."""
    names = ["convmixer", *(name for name in MODULES if below(name, "convmixer.cli", "convmixer.config"))]
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "assert 'torch' not in sys.modules\n"
    )
    assert_runs(code, names)


def test_no_module_is_too_long() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_MODULE} == {}


def test_no_function_is_too_long() -> None:
    lengths = {
        f"{name}.{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION} == {}


def test_every_module_and_public_class_says_what_it_is_for() -> None:
    silent = [name for name, tree in TREES.items() if tree.body and ast.get_docstring(tree) is None]
    silent += [
        f"{name}.{node.name}"
        for name, tree in TREES.items()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and ast.get_docstring(node) is None
    ]
    assert silent == []


@pytest.mark.parametrize("word", ["utils", "misc", "helpers", "common"])
def test_no_module_has_a_name_that_says_nothing(word: str) -> None:
    assert [name for name in MODULES if word in name.split(".")] == []


def test_each_script_of_the_root_is_a_wrapper_to_one_command() -> None:
    for command in ("train", "eval", "infer", "export", "eval-onnx", "infer-onnx"):
        wrapper = ROOT / f"{command.replace('-', '_')}.py"
        # The model zoo's infer prints numbers; names are for `convmixer infer`.
        words = ', "--format", "class"' if command.startswith("infer") else ""
        assert f'main(["{command}"{words}, *sys.argv[1:]])' in wrapper.read_text(encoding="utf-8")
