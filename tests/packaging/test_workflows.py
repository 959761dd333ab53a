"""The workflows call what is there: make targets, scripts, the Pythons that the package says it runs on."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.project import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
MAKE = re.compile(r"\bmake ([\w-]+)")


def load(path: Path) -> dict[Any, Any]:
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def jobs(name: str) -> dict[str, Any]:
    found = load(ROOT / f".github/workflows/{name}.yml")["jobs"]
    assert isinstance(found, dict)
    return found


def commands(workflow: dict[Any, Any]) -> list[str]:
    return [step["run"] for job in workflow["jobs"].values() for step in job.get("steps", ()) if "run" in step]


def test_there_are_workflows_of_changes_and_of_releases() -> None:
    assert [path.stem for path in WORKFLOWS] == ["ci", "release"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_a_workflow_runs_is_there(path: Path) -> None:
    text = "\n".join(commands(load(path)))
    assert text
    assert set(MAKE.findall(text)) <= TARGETS
    for script in re.findall(r"python (\S+\.py)", text):
        assert (ROOT / script).is_file()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_job_has_a_limit_and_waits_for_jobs_that_are_there(path: Path) -> None:
    found = load(path)["jobs"]
    for job in found.values():
        assert "uses" in job or job["timeout-minutes"] <= 60
        needed = job.get("needs", [])
        assert {needed} if isinstance(needed, str) else set(needed) <= found.keys()


def test_ci_does_what_the_local_script_does() -> None:
    local = set(MAKE.findall((ROOT / ".ci/run").read_text(encoding="utf-8")))
    assert local == {"lint", "docs", "test", "test-slow", "test-mindspore"}
    # What makes a whole environment more is left to the workflow.
    more = {"dist", "test-oldest", "test-newest"}
    assert local | more == set(MAKE.findall("\n".join(commands(load(ROOT / ".github/workflows/ci.yml")))))


def test_ci_runs_the_pythons_that_the_package_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    prefix = "Programming Language :: Python :: 3."
    named = [name.removeprefix(prefix) for name in project["classifiers"] if name.startswith(prefix)]
    assert jobs("ci")["test"]["strategy"]["matrix"]["python-version"] == [f"3.{minor}" for minor in named]
    assert project["requires-python"] == f">=3.{named[0]}"


def test_a_release_is_published_after_all_checks_and_without_a_password() -> None:
    found = jobs("release")
    assert found["ci"]["needs"] == "check"
    assert found["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert found["publish"]["needs"] == "ci"
    assert found["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets" not in (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    uploaded = {
        step["with"]["name"]
        for job in {**jobs("ci"), **found}.values()
        for step in job.get("steps", ())
        if step.get("uses", "").startswith("actions/upload-artifact@")
    }
    taken = {
        step["with"]["name"]
        for job in found.values()
        for step in job.get("steps", ())
        if step.get("uses", "").startswith("actions/download-artifact@")
    }
    assert taken == {"dist", "release-notes"}
    assert taken <= uploaded


def test_the_hooks_before_a_commit_are_those_of_make_lint() -> None:
    local = load(ROOT / ".pre-commit-config.yaml")["repos"][0]
    assert local["repo"] == "local"
    entries = {hook["id"]: hook["entry"] for hook in local["hooks"]}
    assert entries == {
        "ruff": ".venv/bin/ruff check --fix --force-exclude",
        "ruff-format": ".venv/bin/ruff format --force-exclude",
        "mypy": ".venv/bin/mypy",
    }
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe is not None
    for words in ("$(BIN)/ruff check", "$(BIN)/ruff format", "$(BIN)/mypy"):
        assert words in recipe[1]
