"""An exported file that is proven to answer as the weights do before it is left in its place."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convmixer.arch import ArchitectureHints, check_image_size
from convmixer.backends.model_file import DeviceRequest
from convmixer.backends.opening import open_model
from convmixer.backends.torch_runtime import TorchRuntime
from convmixer.config.resolved import Resolved
from convmixer.config.schema import ExportConfig
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.source import Source
from convmixer.errors import RUN_FAILED, UserError
from convmixer.exporters.format import Format, WriteSettings, format_of, formats_with
from convmixer.exporters.images import crops, indexed_crops, labels_in, open_images
from convmixer.exporters.parity import TOLERANCES, Parity, compare, table
from convmixer.exporters.target import publish, target_of
from convmixer.inputs import overruled, preprocessing_for
from convmixer.machine import workers
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer
from convmixer.weights.load import build, complete
from convmixer.weights.read import read_weights

logger = logging.getLogger(__name__)
# Of the right answers int8 may lose so many without a word.
_MAX_LOST = 0.005
_HINTS = ("arch", "kernel_size", "patch_size", "activation", "num_classes")


@dataclass(frozen=True)
class ExportResult:
    """The exported file, and how its answers compare with the weights' (None where nothing here runs such files)."""

    path: Path
    parity: Parity | None


def export_weights(resolved: Resolved[ExportConfig]) -> ExportResult:
    """The weights of `pretrained` as a file of another format.

    Raises UserError for what does not fit, and (exit 1) where its answers differ too much; nothing is left there then.
    """
    config = resolved.options
    if config.pretrained is None:
        raise UserError("--pretrained: a weight file or a checkpoint folder is needed")
    form = format_of(config.file_format)
    _refuse_unfit(config, form)
    model, metadata, source = _open(resolved, form)
    target = target_of(config.output, metadata.architecture.name, form)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            parity = _write(resolved, form, model, metadata, source, Path(folder, target.name))
            publish(Path(folder), target, form)
    except OSError as error:
        raise UserError(f"{target}: cannot be written: {error.strerror}", exit_code=RUN_FAILED) from None
    return ExportResult(target, parity)


def _refuse_unfit(config: ExportConfig, form: Format) -> None:
    """Raise UserError for what the format does not have."""
    if config.precision not in form.precisions:
        raise UserError(
            f"--precision: {config.file_format} files are written in {' or '.join(form.precisions)}, "
            f"not in {config.precision}"
        )
    for name in ("embed_preprocess", "opset", "int8_skip", "ort_web"):
        if name not in form.options and getattr(config, name) != ExportConfig.model_fields[name].default:
            others = " or ".join(formats_with(name))
            raise UserError(f"--{name}: is for {others}, not for {config.file_format}")
    if config.int8_skip and config.precision != "int8":
        raise UserError("--int8_skip: is for --precision int8")


def _open(resolved: Resolved[ExportConfig], form: Format) -> tuple[ConvMixer, ModelMetadata, Path]:
    """The network on the CPU, what the exported file will say of itself, and the file of the weights."""
    config = resolved.options
    weights = read_weights(str(config.pretrained), config.entry)
    hints = ArchitectureHints(**{name: resolved.explicit(name) for name in _HINTS})
    architecture, notes = complete(weights, hints)
    preprocessing = preprocessing_for(resolved, weights.preprocessing, architecture.in_chans)
    check_image_size(architecture, preprocessing.size)
    model = build(weights, architecture, ConvMixer)
    for line in notes + overruled(resolved, preprocessing):
        logger.info(line)
    with weights.path.open("rb") as file:
        source = hashlib.file_digest(file, "sha256").hexdigest()
    metadata = ModelMetadata(
        architecture,
        weights.classes,
        preprocessing,
        # Which images they have not learnt from.
        {name: weights.metadata[name] for name in ("held_out",) if name in weights.metadata},
        source_sha256=source,
        precision=config.precision,
        embed_preprocess=config.embed_preprocess or form.embeds_preprocessing,
    )
    return model, metadata, weights.path


def _write(
    resolved: Resolved[ExportConfig], form: Format, model: ConvMixer, metadata: ModelMetadata, weights: Path, path: Path
) -> Parity | None:
    """Write the file and the comparison beside it, which is None where nothing here runs such files.

    Raises UserError (exit 1) where they differ too much.
    """
    config = resolved.options
    threads, inputs = workers(config.num_parallel_workers), metadata.known_preprocessing
    settings = WriteSettings(
        lambda: crops(
            open_images(resolved, config.calibration_images, weights, train=True), inputs, threads, config.max_pixels
        ),
        config.opset,
        config.int8_skip,
        config.ort_web,
    )
    shown = open_images(resolved, config.parity_images, weights, train=False) if form.runs else None
    form.write(model, metadata, path, settings)
    if shown is None:
        logger.info(f"{path.name}: not compared with the weights, nothing here runs {config.file_format} files")
        return None
    tolerance = config.tolerance or TOLERANCES[metadata.precision]
    path = form.model_file(path)
    batches, indices = zip(*indexed_crops(shown, inputs, threads, config.max_pixels), strict=True)
    labels = labels_in(shown, metadata.classes)
    parity = _parity(model, metadata, path, batches, None if labels is None else labels[np.concatenate(indices)])
    for line in table(path.name, parity, tolerance).splitlines():
        logger.info(line)
    if metadata.precision == "int8" and (parity.lost > _MAX_LOST or not parity.within(tolerance)):
        from convmixer.exporters.sensitivity import layer_sensitivity, tell

        tell(layer_sensitivity(model, metadata, settings, batches), config.int8_skip)
    facts: dict[str, Any] = {
        "file": path.name,
        "precision": metadata.precision,
        "source_sha256": metadata.source_sha256,
    }
    facts |= {"tolerance": tolerance, **parity.to_dict()}
    if metadata.embed_preprocess:
        facts["preprocessing_levels"] = _check_preprocessing(metadata, shown, config.max_pixels)
    if not parity.within(tolerance):
        raise UserError(
            f"{path.name}: its logits differ from the weights' by {parity.difference:.2g} of the largest, more than "
            f"--tolerance {tolerance:g}; nothing was written",
            exit_code=RUN_FAILED,
        )
    path.with_name(f"{path.name}.parity.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return parity


def _parity(
    model: ConvMixer, metadata: ModelMetadata, path: Path, batches: Sequence[np.ndarray], labels: np.ndarray | None
) -> Parity:
    def same(record: object, channels: int, size: int | None = None) -> Preprocessing:
        return metadata.known_preprocessing

    exported = open_model(str(path), same, DeviceRequest("CPU", native_code=True))
    weights = TorchRuntime(model, metadata.known_preprocessing, torch.device("cpu"))
    return compare(weights, exported.runtime, batches, labels)


def _check_preprocessing(metadata: ModelMetadata, source: Source, max_pixels: int) -> float:
    """Maximum difference of the graph's own preprocessing, in levels. Raises UserError (exit 1) above one."""
    from convmixer.exporters.preprocess import max_difference

    levels = max_difference(metadata.known_preprocessing, source, max_pixels)
    logger.info(f"the graph's own preprocessing differs by at most {levels:.3g} of 255 levels")
    if levels > 1.01:
        raise UserError("--embed_preprocess: the graph's crops differ by more than a level", exit_code=RUN_FAILED)
    return levels
