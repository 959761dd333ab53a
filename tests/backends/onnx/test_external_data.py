"""Row 34 of the faults: a model reads no file outside its own folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from convmixer.backends.onnx.external_data import external_bytes
from convmixer.backends.onnx.session import CPU, OnnxFile
from convmixer.errors import UserError

WEIGHTS = np.arange(6, dtype=np.float32)


def model_with(location: str, *, nested: bool = False) -> onnx.ModelProto:
    """x + weights that lie in `location`; `nested`: within a branch of an If."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> add (float[6] x) => (float[6] y) { y = Add(x, w) }'
    )
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[6])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    if not nested:
        model.graph.initializer.append(tensor)
        return model
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Constant", [], ["b"], value=tensor)],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [6])],
    )
    node = onnx.helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    model.graph.node.insert(0, node)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "models" / "parts").mkdir(parents=True)
    (tmp_path / "models" / "w.bin").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "models" / "parts" / "w.bin").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "models" / "link.bin").symlink_to(tmp_path / "secret.bin")
    return tmp_path / "models"


def save(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("location", ["../secret.bin", "parts/../../secret.bin", "link.bin", "ABSOLUTE"])
def test_a_file_outside_is_refused(folder: Path, location: str, nested: bool) -> None:
    location = str(folder.parent / "secret.bin") if location == "ABSOLUTE" else location
    path = save(folder, model_with(location, nested=nested))
    with pytest.raises(UserError, match="outside its own folder") as refusal:
        OnnxFile.checked(str(path))
    assert refusal.value.exit_code == 2
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("location", ["w.bin", "parts/w.bin"])
def test_files_beside_the_model_are_read(folder: Path, location: str) -> None:
    session = OnnxFile.checked(str(save(folder, model_with(location)))).session([CPU])
    (found,) = session.run(None, {"x": np.ones(6, np.float32)})
    np.testing.assert_array_equal(found, WEIGHTS + 1)


def test_a_file_that_is_not_there(folder: Path) -> None:
    with pytest.raises(UserError, match=r"'gone\.bin' beside it, which is not there"):
        external_bytes(save(folder, model_with("gone.bin")))


def test_the_word_in_another_place_does_no_harm(folder: Path) -> None:
    model = model_with("w.bin")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(WEIGHTS, "w"))
    model.doc_string = "the location of this model"
    external_bytes(save(folder, model))
