"""The functions in Python as a user meets them: named, typed, and with the answers of the commands."""

from __future__ import annotations

import json
import pydoc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import run_command
from tests.project import SRC

import convmixer
from convmixer.data.crops import eval_crop
from convmixer.data.decode import decode_image


def test_help_and_completion_name_all_of_it() -> None:
    shown = pydoc.plain(pydoc.render_doc(convmixer))
    for name in convmixer.__all__:
        assert name in shown or name == "__version__"
        assert getattr(convmixer, name) is not None
    assert {name for name in dir(convmixer) if not name.startswith("_")} == {*convmixer.__all__} - {"__version__"}
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        convmixer.trian  # noqa: B018


def test_importing_it_does_not_import_torch() -> None:
    code = "import sys, convmixer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SRC)}).returncode == 0


@pytest.mark.slow
def test_a_type_checker_knows_the_signatures(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "import convmixer\n"
        "convmixer.load_model(3)\n"
        "convmixer.load_model('w').predict('photo.jpg')[0].probability.bit_length()\n"
        "run = convmixer.train('flowers', epochs=3)\n"
        "assert run is not None\n"
        "reveal_type(run.best_weights)\n"
        "convmixer.train('flowers', config=convmixer.Config(epochs=3, epoch=3))\n"
    )
    words = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "user.py"]
    done = subprocess.run(words, cwd=tmp_path, env={"MYPYPATH": str(SRC)}, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert 'user.py:2: error: Argument 1 to "load_model" has incompatible type "int"' in lines[0]
    assert 'user.py:3: error: "float" has no attribute "bit_length"' in lines[1]
    assert 'user.py:6: note: Revealed type is "pathlib.Path"' in lines[2]
    assert 'user.py:7: error: Unexpected keyword argument "epoch" for "Config"' in lines[3]
    assert len(lines) == 5


def test_a_run_and_what_it_leaves(here: Path, toy: Path) -> None:
    run = convmixer.train(
        toy, arch="convmixer_8_1", kernel_size=3, patch_size=2, image_size=8, epochs=2, batch_size=8,
        num_parallel_workers=0, eval_every=1,
    )  # fmt: skip
    assert run is not None
    assert run.summary == Path("runs/summary") / run.name
    assert run.best_weights.is_file()
    assert run.last_checkpoint == Path("runs/checkpoints") / run.name / "step_00000006"
    evaluations = run.metrics()
    assert [entry["epoch"] for entry in evaluations] == [1, 2]
    assert run.best_top1 == max(entry["Top1-Acc"] for entry in evaluations)
    options = (run.summary / "config.yaml").read_text()
    assert "epochs: 2  # argument" in options
    assert f"data_url: {toy}  # argument" in options
    result = convmixer.evaluate(run.best_weights, toy, num_parallel_workers=0)
    assert result.top1 == run.best_top1
    assert (result.images, result.unreadable) == (13, ())


def test_a_config_is_the_options_that_it_was_given(toy: Path, weights: Path) -> None:
    """Its defaults leave the recipe's values as they are, and what stands beside it wins."""
    few = convmixer.Config(val_num_samples=4, batch_size=2, num_parallel_workers=0)
    found = convmixer.evaluate(weights, toy, config=few, val_num_samples=5)
    assert found == convmixer.evaluate(weights, toy, val_num_samples=5)
    assert found.images == 5
    assert convmixer.evaluate(weights, toy, config=few).images == 4


def test_what_evaluate_gives_is_what_the_command_prints(toy: Path, weights: Path) -> None:
    result = convmixer.evaluate(weights, toy)
    printed = run_command("eval", f"--pretrained={weights}", f"--data_url={toy}").out
    means = {"Loss": result.loss, "Top1-Acc": result.top1, "Top5-Acc": result.top5}
    assert printed == f"eval results: {means}\n"


def test_images_that_cannot_be_read_are_named(own_toy: Path, weights: Path) -> None:
    bad = own_toy / "val/red/0.png"
    bad.write_bytes(b"no image")
    result = convmixer.evaluate(weights, own_toy)
    assert result.images == 12
    ((name, reason),) = result.unreadable
    assert name == str(bad)
    assert reason


def test_images_of_every_kind_get_the_same_answer(toy: Path, weights: Path) -> None:
    paths = sorted((toy / "val/red").glob("*.png"))
    pixels = []
    for path in paths:
        with Image.open(path) as image:
            pixels.append(np.asarray(image))
    in_memory = [Image.fromarray(each) for each in pixels]
    expected = convmixer.predict(weights, paths)
    assert [Path(answer.path) for answer in expected] == paths
    assert {answer.name for answer in expected} <= {"blue", "green", "red"}
    mixed: list[Path | np.ndarray] = [paths[0], *pixels[1:]]
    for images in (in_memory, pixels, np.stack(pixels), mixed):
        answers = convmixer.predict(weights, images)
        assert [answer.topk for answer in answers] == [answer.topk for answer in expected]
    for one in (paths[0], str(paths[0]), in_memory[0], pixels[0]):
        (answer,) = convmixer.predict(weights, one, topk=2)
        assert [each.name for each in answer.topk] == [each.name for each in expected[0].topk[:2]]
        # A batch of another size is summed up in another order.
        assert answer.probability == pytest.approx(expected[0].probability, abs=1e-6)
    assert convmixer.predict(weights, pixels)[1].path == "image 1"
    assert len(convmixer.predict(weights, toy / "val", recursive=True)) == 13


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "LA", "1"])
def test_a_pillow_image_is_read_as_its_file_would_be(tmp_path: Path, weights: Path, mode: str) -> None:
    image = Image.effect_mandelbrot((30, 20), (-2, -1, 1, 1), 50).convert("RGB").convert(mode)
    path = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    image.save(path)
    assert convmixer.predict(weights, image)[0].topk == convmixer.predict(weights, path)[0].topk


def test_a_turned_pillow_image(tmp_path: Path, weights: Path) -> None:
    """The recipe for folders turns images as their EXIF orientation says, and so it is with one in memory."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_mandelbrot((30, 20), (-2, -1, 1, 1), 50).convert("RGB").save(tmp_path / "a.png", exif=exif)
    model = convmixer.load_model(weights)
    assert model.preprocessing.exif
    with Image.open(tmp_path / "a.png") as image:
        from_memory, from_file = model.predict([image, tmp_path / "a.png"])
    assert from_memory.topk == from_file.topk


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 4, 3)), "an array float64 [4, 4, 3]; uint8 pixels"),
        (np.zeros((4, 4, 7), np.uint8), "an array uint8 [4, 4, 7]; uint8 pixels"),
        ([None], "number 0 is a NoneType, no path, image or array"),
        ([], "images: there are none"),
        ("nowhere.jpg", "nowhere.jpg"),
    ],
)
def test_what_is_no_image_is_refused(here: Path, weights: Path, images: object, message: str) -> None:
    with pytest.raises(convmixer.UserError) as caught:
        convmixer.predict(weights, images)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_one_that_cannot_be_read_is_a_fault(here: Path, toy: Path, weights: Path) -> None:
    (here / "bad.png").write_bytes(b"no image")
    bad, good = convmixer.predict(weights, ["bad.png", next((toy / "val/red").glob("*.png"))])
    assert bad.topk == ()
    assert bad.error
    assert good.error is None
    with pytest.raises(ValueError, match=r"bad\.png: "):
        _ = bad.name


def test_a_loaded_model_knows_its_classes_and_its_input(toy: Path, weights: Path) -> None:
    model = convmixer.load_model(weights)
    assert isinstance(model, torch.nn.Module)
    assert not model.training
    assert model.classes == ("blue", "green", "red")
    path = next((toy / "val/blue").glob("*.png"))
    crop = eval_crop(decode_image(path.read_bytes()), model.preprocessing)
    with torch.no_grad():
        logits = model(torch.from_numpy(model.preprocessing.normalise(crop[None])))
    (answer,) = model.predict(path)
    expected = logits.double().softmax(1)[0]
    assert answer.index == int(expected.argmax())
    assert answer.probability == pytest.approx(float(expected.max()), abs=1e-6)
    plain = convmixer.create_model("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=3)
    assert plain.state_dict().keys() == model.state_dict().keys()


def test_weights_that_name_no_classes(tmp_path: Path, toy: Path) -> None:
    torch.save(convmixer.create_model("convmixer_8_1", num_classes=4).state_dict(), tmp_path / "w.pth")
    model = convmixer.load_model(tmp_path / "w.pth", activation="relu")
    assert model.classes is None
    (answer,) = model.predict(np.zeros((30, 30, 3), np.uint8))
    assert answer.name == str(answer.index)


def test_an_exported_file_answers_alike(here: Path, toy: Path, weights: Path) -> None:
    result = convmixer.export(weights, "toy.onnx", data_url=toy, parity_images=2)
    assert result.path == Path("toy.onnx")
    assert result.parity is not None
    assert result.parity.difference < 1e-5
    folder = toy / "val/green"
    ours, theirs = convmixer.predict(weights, folder), convmixer.predict("toy.onnx", folder)
    assert [answer.name for answer in ours] == [answer.name for answer in theirs]
    assert convmixer.evaluate("toy.onnx", toy).top1 == convmixer.evaluate(weights, toy).top1


def test_wrong_arguments_are_reported_as_options_are(weights: Path) -> None:
    with pytest.raises(convmixer.UserError, match=r"^unknown option epoch; did you mean epochs\?$"):
        convmixer.train(epoch=3)
    with pytest.raises(convmixer.UserError, match=r"^epochs: should be greater than or equal to 1, not 0$"):
        convmixer.train(epochs=0)
    with pytest.raises(convmixer.UserError, match=r"^batch_size: "):
        convmixer.evaluate(weights, batch_size="many")
    with pytest.raises(convmixer.UserError, match="device_num: in Python one process trains"):
        convmixer.train(device_num=2)


def test_the_names_of_networks() -> None:
    assert convmixer.list_models() == ["convmixer_768_32", "convmixer_1024_20", "convmixer_1536_20"]
    assert json.dumps(convmixer.list_models())
