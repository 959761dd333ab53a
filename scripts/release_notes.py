"""What a release says of itself: the section of CHANGELOG.md of a version tag, on stdout.

    python scripts/release_notes.py v0.1.0

Exit status 1, and one line why, where the tag is not the package's version or the changelog has no dated section of it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def package_version(source: str) -> str:
    """`__version__` in the text of the package's `__init__.py`, which needs no import of what is not installed."""
    found = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if found is None:
        raise ValueError("src/convmixer/__init__.py: there is no __version__")
    return found[1]


def release_notes(tag: str, version: str, changelog: str) -> str:
    """The text below the heading `## [version] - date`. Raises ValueError for another tag, or without that heading."""
    if tag != f"v{version}":
        raise ValueError(f"tag {tag}: the package's version is {version}, so its tag is v{version}")
    section = re.search(
        rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    if section is None or not section[1].strip():
        raise ValueError(f"CHANGELOG.md: there is no section `## [{version}] - YYYY-MM-DD` with a text")
    return section[1].strip() + "\n"


def main(words: list[str]) -> int:
    if len(words) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        version = package_version((ROOT / "src/convmixer/__init__.py").read_text(encoding="utf-8"))
        print(release_notes(words[0], version, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")), end="")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
