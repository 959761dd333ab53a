"""`python infer_onnx.py`: the model zoo's name of `convmixer infer-onnx`; needs no installation of the package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from convmixer.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["infer-onnx", "--format", "class", *sys.argv[1:]]))
