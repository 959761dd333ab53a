"""What is fuzzed: for each target the hostile inputs, and the call that reads one."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from hypothesis import strategies as st
from PIL import Image
from tests.fuzz import seeds
from tests.fuzz.damage import (
    PICKLES,
    changed_json,
    command_lines,
    damaged,
    damaged_images,
    json_texts,
    policies,
    yaml_texts,
)

from convmixer.arch import ArchitectureHints
from convmixer.augment.draws import draw_chain, draw_layers, draw_mixture
from convmixer.cli import check_data_command, eval_command, infer_command, train_command
from convmixer.config.loading import parse
from convmixer.config.options import options_of
from convmixer.config.recipes import shipped_recipes
from convmixer.config.schema import Config
from convmixer.data.crops import eval_crop
from convmixer.data.decode import decode_image
from convmixer.data.folders import Files
from convmixer.data.inspection.probe import probe
from convmixer.data.sources.cifar10 import open_cifar10
from convmixer.metadata import KEY
from convmixer.policies.spec import AugMix, parse_policy
from convmixer.training.checkpointing.checkpoint import find_damage, load_checkpoint
from convmixer.weights.load import check, complete
from convmixer.weights.read import read_weights
from convmixer.weights.seal import seal_with


@dataclass(frozen=True)
class Target:
    """`inputs`: hostile ones; `whole`: one that must be accepted, or the target tests nothing; `read`: reads one."""

    inputs: st.SearchStrategy[Any]
    whole: Any
    read: Callable[[Any], object]


def images(folder: Path) -> Target:
    """Bytes of an image through `decode`, and as a file through the data set's check."""
    whole = seeds.images()
    path = folder / "image.jpg"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        probe(Files([path]), 0)
        decode_image(content, channels=1)
        decode_image(content, exif=True)

    return Target(damaged_images(whole), whole[1], read)


def cifar10(folder: Path) -> Target:
    """A pickled batch of CIFAR-10."""
    whole = seeds.cifar10_batch()
    (folder / "cifar-10-batches-py").mkdir(exist_ok=True)

    def read(content: bytes) -> None:
        (folder / "cifar-10-batches-py/test_batch").write_bytes(content)
        open_cifar10(str(folder), train=False)

    return Target(damaged([whole, *PICKLES]), whole, read)


def weights(folder: Path) -> Target:
    """A weight file of any layout through `read_weights`, then what loading and preprocessing make of it."""
    whole = seeds.weight_files(folder)
    parts = seeds.members(whole["timm"])
    pickled = next(name for name in parts if name.endswith("data.pkl"))
    repacked = damaged([parts[pickled], *PICKLES]).map(lambda content: seeds.packed({**parts, pickled: content}))
    newer = seeds.members(whole["protocol 5"])
    newest = next(name for name in newer if name.endswith("data.pkl"))
    repacked |= damaged([newer[newest], *PICKLES]).map(lambda content: seeds.packed({**newer, newest: content}))
    everything = (
        damaged([*whole.values(), *PICKLES]) | repacked | _safetensors(whole["native"]) | st.binary(max_size=64)
    )

    path, picture = folder / "weights", Image.new("RGB", (23, 17))

    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = read_weights(path)
        check(found, complete(found, ArchitectureHints("convmixer_8_2"))[0])
        if found.preprocessing is not None:
            eval_crop(picture.convert("L" if found.preprocessing.channels == 1 else "RGB"), found.preprocessing)

    return Target(everything, whole["native"], read)


def _safetensors(whole: bytes) -> st.SearchStrategy[bytes]:
    """A header of safetensors that is other JSON, or our record changed and hashed as if it were right."""
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + size])
    record = json.loads(header["__metadata__"][KEY])
    tensors = safetensors.torch.load(whole)

    def with_record(values: Any) -> bytes:
        if isinstance(values, dict):
            values.pop("sha256", None)
            values["sha256"] = seal_with(tensors)(values)
        return safetensors.torch.save(tensors, {KEY: json.dumps(values)})

    def with_header(text: bytes) -> bytes:
        return struct.pack("<Q", len(text)) + text + whole[8 + size :]

    deep = st.just(safetensors.torch.save(tensors, {KEY: "[" * 100_000}))
    return json_texts(header).map(with_header) | changed_json(record).map(with_record) | deep


def checkpoints(folder: Path) -> Target:
    """A checkpoint folder whose files are damaged, with a manifest that tells their true hashes or is damaged too."""
    whole = seeds.checkpoint(folder)
    manifest = json.loads(whole["manifest.json"])
    names = [name for name in whole if name != "manifest.json"]
    state = seeds.members(whole["state.pt"])
    pickled = next(name for name in state if name.endswith("data.pkl"))
    states = damaged([whole["state.pt"], *PICKLES]) | damaged([state[pickled], *PICKLES]).map(
        lambda content: seeds.packed({**state, pickled: content})
    )
    one_file = st.tuples(st.sampled_from(names), damaged([whole[name] for name in names])) | st.tuples(
        st.just("state.pt"), states
    )
    inputs = json_texts(manifest).map(lambda text: {**whole, "manifest.json": text}) | one_file.map(
        lambda change: with_manifest({**whole, change[0]: change[1]})
    )
    place = folder / "step_00000007"

    def with_manifest(files: dict[str, bytes]) -> dict[str, bytes]:
        listed = {n: {"bytes": len(files[n]), "sha256": hashlib.sha256(files[n]).hexdigest()} for n in names}
        changed = {**{k: v for k, v in manifest.items() if k != "sha256"}, "files": listed}
        changed["sha256"] = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()
        return {**files, "manifest.json": json.dumps(changed).encode()}

    def read(files: dict[str, bytes]) -> None:
        for name, content in files.items():
            (place / name).write_bytes(content)
        if find_damage(place) is None:
            load_checkpoint(place)

    return Target(inputs, whole, read)


def recipes(folder: Path) -> Target:
    """A YAML file of options."""
    shipped = [path.read_bytes() for path in shipped_recipes().values()]
    keys = [name for option in options_of(Config) for name in option.names]
    path = folder / "recipe.yaml"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        parse(train_command.COMMAND, ["--config", str(path)])

    return Target(yaml_texts(shipped, keys), shipped[0], read)


def options(folder: Path) -> Target:
    """A command line."""
    commands = [module.COMMAND for module in (train_command, eval_command, infer_command, check_data_command)]
    known = {c: [name for option in options_of(c.model) for name in option.names] for c in commands}
    values = sorted({str(choice) for c in commands for option in options_of(c.model) for choice in option.choices})
    inputs = st.sampled_from(commands).flatmap(
        lambda command: st.tuples(st.just(command), command_lines([*known[command], "config", "help"], values))
    )
    return Target(inputs, (commands[0], ["--epochs", "3"]), lambda given: parse(*given))


def augmentation(folder: Path) -> Target:
    """A policy's spec, and the operations that it leads to."""

    def read(spec: str) -> None:
        policy = parse_policy(spec)
        of: dict[str, Any] = {"seed": 0, "epoch": 0, "indices": np.arange(4)}
        if isinstance(policy, AugMix):
            layers = draw_chain(policy, 0, "random", (8, 8), **of)
            assert np.isfinite(draw_mixture(policy, **of)).all(), "a weight is not finite"
        else:
            layers = draw_layers(policy, "random", (8, 8), **of)
        for layer in layers:
            assert np.isfinite(layer.args).all(), "an operation's argument is not finite"

    return Target(policies(), "rand-m9-mstd0.5-inc1", read)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "images": images,
    "cifar10": cifar10,
    "weights": weights,
    "checkpoints": checkpoints,
    "recipes": recipes,
    "options": options,
    "augmentation": augmentation,
}
