"""`python infer.py`: the model zoo's name of `convmixer infer`; needs no installation of the package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from convmixer.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["infer", "--format", "class", *sys.argv[1:]]))
