"""A ConvMixer as a folder that classifies pictures in a browser: a page, the network, and what runs it there."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from convmixer import __version__
from convmixer.data.imagenet import readable
from convmixer.exporters.format import WriteSettings
from convmixer.exporters.onnx import write_onnx
from convmixer.exporters.onnxruntime_web import PACKAGE, VERSION, runtime_files
from convmixer.metadata import ModelMetadata, encode_metadata
from convmixer.model import ConvMixer
from convmixer.web import SHARED, page_file

MODEL, RECORD, LICENSE = "model.onnx", "convmixer.json", "LICENSE.txt"
_NOTE = f"""\
index.html, style.css, icon.svg and the .js files beside them are of convmixer {__version__}, under the Apache License
2.0 (https://www.apache.org/licenses/LICENSE-2.0).
model.onnx holds weights: their licence is whatever their owner says.
The files in ort/ are of {PACKAGE} {VERSION}, whose licence is:

"""


def write_web(model: ConvMixer, metadata: ModelMetadata, folder: Path, settings: WriteSettings) -> None:
    """Fill the new `folder`. Raises UserError where ONNX Runtime's files cannot be had, and as `write_onnx`."""
    runtime = runtime_files(settings.ort_web)
    folder.mkdir()
    write_onnx(model, metadata, folder / MODEL, settings.calibration, settings.opset, settings.int8_skip)
    for name in (*SHARED, "classify.js"):
        (folder / name).write_bytes(page_file(name))
    (folder / "ort").mkdir()
    for name, content in runtime.items():
        (folder / "ort" / PurePosixPath(name).name).write_bytes(content)
    (folder / LICENSE).write_bytes(_NOTE.encode() + page_file(f"{PACKAGE}-license.txt"))
    facts = {"names": class_names(metadata), "record": json.loads(encode_metadata(metadata))}
    (folder / RECORD).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def class_names(metadata: ModelMetadata) -> list[str]:
    """The classes as answers have them: ImageNet's identifiers in words, and numbers where no names are known."""
    if metadata.classes is None:
        return [str(number) for number in range(metadata.architecture.num_classes)]
    return [readable(name) for name in metadata.classes.names]
