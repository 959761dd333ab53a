"""Run the cells of docs/tutorial.ipynb and store it with what they show: in its place, or as the file that is named.

    python scripts/run_tutorial.py [OUTPUT]

A cell that fails ends it with a traceback, and nothing is stored.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs/tutorial.ipynb"


def main(words: list[str]) -> None:
    output = Path(words[0]) if words else NOTEBOOK
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    # Without the times of each cell, which would be another difference at each run.
    NotebookClient(notebook, timeout=600, resources=where, record_timing=False).execute()
    nbformat.write(notebook, output)


if __name__ == "__main__":
    main(sys.argv[1:])
