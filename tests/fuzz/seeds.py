"""Valid files of every kind that is read, for the fuzzer to damage."""

from __future__ import annotations

import argparse
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from convmixer.arch import Architecture
from convmixer.data.classes import ClassMap
from convmixer.data.formats.signatures import READ
from convmixer.data.preprocessing import Preprocessing
from convmixer.model import ConvMixer
from convmixer.training.checkpointing.checkpoint import save_checkpoint
from convmixer.weights.mindspore_ckpt import encode_checkpoint, read_checkpoint
from convmixer.weights.write import write_layout, write_weights

ARCHITECTURE = Architecture(8, 2, kernel_size=3, patch_size=2, num_classes=3)
ABOUT: dict[str, Any] = {
    "architecture": ARCHITECTURE,
    "classes": ClassMap(("cat", "dog", "eel")),
    "preprocessing": Preprocessing(size=8),
}


def images() -> list[bytes]:
    """JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF in their various forms, 23 x 17 pixels."""
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((23, 17))
    deep = Image.fromarray(random.integers(0, 65536, (17, 23), dtype=np.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6
    frames: dict[str, Any] = {"save_all": True, "append_images": [picture.rotate(90), picture.rotate(180)]}
    transparent = picture.convert("RGBA")
    transparent.putalpha(picture.convert("L"))
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (picture, "JPEG", {}),
        (picture, "JPEG", {"progressive": True, "exif": turned, "comment": "text"}),
        (picture.convert("L"), "JPEG", {"restart_marker_blocks": 1}),
        (picture.convert("CMYK"), "JPEG", {}),
        (picture, "PNG", {"exif": turned}),
        (transparent, "PNG", {}),
        (deep, "PNG", {}),
        (picture.quantize(8), "PNG", {"transparency": 3}),
        (picture.convert("1"), "PNG", {}),
        (picture, "PNG", frames),
        (picture, "WEBP", {}),
        (transparent, "WEBP", {"lossless": True}),
        (picture, "WEBP", frames),
        (picture, "GIF", {}),
        (picture, "GIF", frames),
        (picture, "BMP", {}),
        (picture.quantize(8), "BMP", {}),
        (picture.convert("1"), "BMP", {}),
        (picture, "TIFF", {"tiffinfo": {0x0112: 6}}),
        (picture, "TIFF", {"compression": "tiff_lzw"}),
        (picture, "TIFF", {"compression": "jpeg"}),
        (deep, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (transparent, "TIFF", {"compression": "packbits"}),
    ]
    if "AVIF" in READ:
        kinds.append((transparent, "AVIF", {"exif": turned}))
    return [_saved(*kind) for kind in kinds]


def _saved(image: Image.Image, form: str, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def model() -> ConvMixer:
    torch.manual_seed(0)
    return ConvMixer(ARCHITECTURE)


def weight_files(folder: Path) -> dict[str, bytes]:
    """A tiny network in every layout that is read."""
    state, path = model().state_dict(), folder / "seed"
    found = {}
    for layout in ("authors", "timm", "mindspore"):
        write_layout(path, state, layout, architecture=ARCHITECTURE)
        found[layout] = path.read_bytes()
    write_weights(path, state, **ABOUT)
    found["native"] = path.read_bytes()
    torch.save({"state_dict": state, "epoch": 3}, path, _use_new_zipfile_serialization=False)
    found["legacy"] = path.read_bytes()
    found["pickle"] = pickle.dumps({"state_dict": {"stem": [1.0]}, "epoch": 3})
    beside = {"top1": np.float64(0.5), "out": Path("a/b"), "args": argparse.Namespace(lr=0.1), "seen": {1}}
    for name, pickle_protocol in (("protocol 2", 2), ("protocol 5", 5)):
        content = {"model": {f"net.{key}": tensor for key, tensor in state.items()}, "ema": state, **beside}
        torch.save(content, path, pickle_protocol=pickle_protocol)
        found[name] = path.read_bytes()
    found["pickled tensors"] = pickle.dumps({**state, **beside}, 4)
    path.write_bytes(found["mindspore"])
    arrays = {key: value for key, value in read_checkpoint(path).items() if not isinstance(value, str)}
    trained = {f"model.{key}": value for key, value in arrays.items()}
    moments = {f"adam_m.model.{key}": value for key, value in arrays.items() if "moving" not in key}
    found["mindspore training"] = encode_checkpoint({**trained, **moments, "learning_rate": np.array(0.1, np.float32)})
    return found


def members(archive: bytes) -> dict[str, bytes]:
    """The content of a zip archive by name."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return {name: file.read(name) for name in file.namelist()}


def packed(content: dict[str, bytes]) -> bytes:
    """The archive of these members, as torch.save packs them."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, value in content.items():
            archive.writestr(name, value)
    return file.getvalue()


def checkpoint(folder: Path) -> dict[str, bytes]:
    """The files of a checkpoint folder, its manifest among them."""
    state = {"step": 7, "rng": torch.zeros(4), "best": 0.5, "optimizer": {"param_groups": [{"lr": 0.1}]}}
    weights = {name: model().state_dict() for name in ("model.safetensors", "ema.safetensors")}
    save_checkpoint(folder, 7, weights, state, ABOUT)
    return {path.name: path.read_bytes() for path in (folder / "step_00000007").iterdir()}


def cifar10_batch() -> bytes:
    """A test batch of two images, as the data set's own files have it."""
    return pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}, 2)
