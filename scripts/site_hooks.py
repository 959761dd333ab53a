"""Hooks of mkdocs.yml: the site has the repository's layout, and the notebook as a page.

mkdocs knows one folder of pages; README, CHANGELOG and the measurements lie outside of it. Here every page and picture
gets the path that it has in the repository, so that a relative link leads to the same place in both.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the tests of `notebook_page` need no mkdocs
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**/*", "benchmarks/**/*")
SUFFIXES = {".css", ".ipynb", ".json", ".jsonl", ".md", ".png", ".txt"}
NOTEBOOK = "docs/tutorial.ipynb"


def site_files() -> set[Path]:
    """The files of the repository that the site has."""
    return {path for pattern in PAGES for path in ROOT.glob(pattern) if path.suffix in SUFFIXES}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """All pages and what they show, by their paths in the repository; what the theme brings stays."""
    from mkdocs.structure.files import File

    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    for path in sorted(site_files()):
        uri = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    page, images = notebook_page(json.loads((ROOT / NOTEBOOK).read_text(encoding="utf-8")), PurePosixPath(NOTEBOOK))
    files.append(File.generated(config, str(PurePosixPath(NOTEBOOK).with_suffix(".md")), content=page))
    for name, content in images.items():
        files.append(File.generated(config, str(PurePosixPath(NOTEBOOK).with_name(name)), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to the notebook lead to its page, but for the one there by which it is downloaded."""
    name = PurePosixPath(NOTEBOOK)
    if page.file.src_uri == str(name.with_suffix(".md")):
        return markdown
    return markdown.replace(f"{name.name})", f"{name.stem}.md)")


def notebook_page(notebook: dict[str, Any], path: PurePosixPath) -> tuple[str, dict[str, bytes]]:
    """A notebook (nbformat 4) as Markdown, and the PNG pictures that it shows, by name."""
    parts: list[str] = []
    images: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code":
            parts.append(_fenced(source, "python"))
            for output in cell["outputs"]:
                parts += _shown(output, f"{path.stem}_{len(images)}.png", images)
    title, *rest = parts
    return "\n\n".join([title, f"[Download this notebook]({path.name})", *rest]) + "\n", images


def _shown(output: dict[str, Any], name: str, images: dict[str, bytes]) -> Iterator[str]:
    """What a cell has printed or drawn; a picture is put into `images` by its name. Errors are not for a page."""
    data = output.get("data", {})
    if output["output_type"] == "error":
        raise ValueError(f"{NOTEBOOK}: a cell failed with {output['ename']}; run `make tutorial`")
    if "image/png" in data:
        images[name] = base64.b64decode("".join(data["image/png"]))
        yield f"![output of the cell above]({name})"
    elif text := "".join(output.get("text", data.get("text/plain", ""))):
        yield _fenced(text.rstrip("\n"), "text")


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"
