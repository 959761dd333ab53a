"""What the program knows of its packages is what pyproject.toml, the documents and its own imports say."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from itertools import chain

import pytest
from tests.project import ROOT, SRC

import convmixer
from convmixer.errors import UserError
from convmixer.packages import CORE, EXTRAS, install_command, missing_package, needed_for, normalised, package_of

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OUR_WORK = {"bench", "dev", "docs"}
# What others bring: torch its language of kernels, Jinja2 its strings, onnx its messages, a vendor his devices.
BROUGHT = {"triton", "markupsafe", "protobuf", "torch-npu"}
# Their tests skip there: MLflow is not installed, and each ExecuTorch fits one torch, none of which is the oldest.
NOT_IN_THE_SUITE = {"mlflow-skinny", "sqlalchemy", "alembic", "executorch"}


def names(requirements: list[str]) -> set[str]:
    """The packages of some requirements, without the extras of ours that they refer to."""
    found = {normalised(re.split(r"[^\w.-]", requirement)[0]) for requirement in requirements}
    return found - {"convmixer"}


def test_the_extras_are_those_of_the_package() -> None:
    extras = {name: names(found) for name, found in PROJECT["optional-dependencies"].items() if name not in OUR_WORK}
    assert extras.pop("optimizers") == set()  # an older name of the engine's
    assert extras == {name: set(map(normalised, extra.packages)) for name, extra in EXTRAS.items()}
    assert names(PROJECT["dependencies"]) == set(map(normalised, CORE))


def test_the_page_on_installation_has_each_extra_with_its_purpose() -> None:
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", page, re.MULTILINE))
    assert rows == {name: extra.purpose for name, extra in EXTRAS.items()}


def test_what_is_imported_belongs_to_the_core_or_an_extra() -> None:
    known = set(map(normalised, CORE)) | BROUGHT
    known |= {normalised(package) for extra in EXTRAS.values() for package in extra.packages}
    imported: set[str] = set()
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
    strange = {name for name in imported if package_of(name) not in known}
    assert strange - sys.stdlib_module_names == {"convmixer"}


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("torch", "pip install 'convmixer[torch]'"),
        ("jinja2", "pip install 'convmixer[torch]'"),
        ("onnxruntime", "pip install 'convmixer[onnxruntime]'"),
        ("pi_heif", "pip install 'convmixer[heif]'"),
        ("mlflow", "pip install 'convmixer[mlflow]'"),
        ("PIL", "pip install pillow"),
        ("elsewhere", "pip install elsewhere"),
    ],
)
def test_what_brings_a_module(module: str, command: str) -> None:
    assert install_command(module) == command


def test_a_package_that_is_there_but_broken_is_said_so() -> None:
    broken = ImportError("libcudart.so.13: cannot open shared object file\nmore", name="torch._C")
    assert str(missing_package("train", broken)) == (
        "train needs torch, which is installed, but cannot be imported: libcudart.so.13: cannot open shared object "
        "file\n`convmixer doctor` tells more."
    )


def test_a_package_that_is_too_old_is_said_so() -> None:
    gone = ModuleNotFoundError("No module named 'numpy.of.2040'", name="numpy.of.2040")
    assert str(missing_package("train", gone)) == (
        "train needs numpy.of.2040, which the installed numpy does not have: pip install --upgrade numpy"
    )


def test_a_module_of_ours_that_is_missing_stays_a_fault_of_ours() -> None:
    with pytest.raises(ModuleNotFoundError), needed_for("train"):
        import convmixer.no_such_module  # type: ignore[import-not-found]  # noqa: F401


@pytest.mark.parametrize("name", ["load_model", "create_model", "ConvMixer"])
def test_a_name_of_the_package_that_needs_torch_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch", "convmixer.model", "convmixer.api.classifier"):
        monkeypatch.setitem(sys.modules, module, None)
    for module in ("convmixer.model", "convmixer.api.classifier"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(vars(convmixer), name, raising=False)
    with pytest.raises(UserError) as caught:
        getattr(convmixer, name)
    message = f"convmixer.{name} needs torch, which is not installed: pip install 'convmixer[torch]'"
    assert (str(caught.value), caught.value.exit_code) == (message, 2)


def test_the_oldest_packages_are_the_lower_bounds() -> None:
    """What `make test-oldest` installs, but for packages that only others of these need."""
    requirements = [
        *PROJECT["dependencies"],
        *chain.from_iterable(PROJECT["optional-dependencies"][name] for name in EXTRAS),
    ]
    bounds = {}
    for requirement in requirements:
        found = re.fullmatch(r"([\w.-]+)>=([\d.]+)(;.*)?", requirement)
        if found is not None:
            bounds[normalised(found[1])] = found[2]
    text = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8")
    oldest = {normalised(name): version for name, version in re.findall(r"^([\w.-]+)==([\d.]+)$", text, re.MULTILINE)}
    assert bounds.keys() - oldest.keys() == NOT_IN_THE_SUITE
    assert oldest.keys() - bounds.keys() == {"pyparsing"}
    for name in oldest.keys() & bounds.keys():
        assert f"{oldest[name]}.0".startswith(f"{bounds[name]}."), name
