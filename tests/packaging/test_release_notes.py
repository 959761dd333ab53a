"""What a release says of itself is the changelog's section of its tag, and the tag is the package's version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.project import ROOT

import convmixer


def notes(*words: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "scripts/release_notes.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of version 1.2.3, with the script and what it reads."""
    for name, text in {
        "scripts/release_notes.py": (ROOT / "scripts/release_notes.py").read_text(encoding="utf-8"),
        "src/convmixer/__init__.py": '"""Text."""\n\n__version__ = "1.2.3"\n',
        "CHANGELOG.md": "# Changelog\n\n## [Unreleased]\n\n* later\n\n"
        "## [1.2.3] - 2026-01-31\n\n### Added\n\n* this\n\n## [1.2.0] - 2026-01-01\n\n* before\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_section_of_the_tag_alone(checkout: Path) -> None:
    done = notes("v1.2.3", root=checkout)
    assert (done.returncode, done.stdout, done.stderr) == (0, "### Added\n\n* this\n", "")


@pytest.mark.parametrize("tag", ["v1.2.0", "1.2.3", "v1.2.3rc1"])
def test_a_tag_that_is_not_the_version(checkout: Path, tag: str) -> None:
    done = notes(tag, root=checkout)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"tag {tag}: the package's version is 1.2.3, so its tag is v1.2.3\n"


@pytest.mark.parametrize("heading", ["## [1.2.3]", "## [1.2.3] - soon", "## [11203] - 2026-01-31"])
def test_a_version_without_a_dated_section(checkout: Path, heading: str) -> None:
    text = (checkout / "CHANGELOG.md").read_text(encoding="utf-8")
    (checkout / "CHANGELOG.md").write_text(text.replace("## [1.2.3] - 2026-01-31", heading), encoding="utf-8")
    done = notes("v1.2.3", root=checkout)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "CHANGELOG.md: there is no section `## [1.2.3] - YYYY-MM-DD` with a text\n"


def test_this_version_can_be_released() -> None:
    done = notes(f"v{convmixer.__version__}")
    assert done.returncode == 0, done.stderr
    assert "* **Commands**" in done.stdout
