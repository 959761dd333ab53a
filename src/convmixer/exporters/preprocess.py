"""The evaluation's preprocessing as an ONNX graph, and how far from the host's it comes out."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime

from convmixer.data.crops import eval_crop
from convmixer.data.limits import MAX_PIXELS, BadImage
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import only_this_image, read_image
from convmixer.data.source import Source
from convmixer.errors import UserError

IMAGES, NORMALISED = "images", "normalised"
# The first opset whose Resize filters as Pillow does when it makes images smaller.
RESIZE_OPSET = 18

# Pillow's filters. In uint8, as Pillow computes, a value in 5,000 differs by one level; in float a sixth of all would.
_RESIZE = {
    "bicubic": 'mode = "cubic", cubic_coeff_a = -0.5, antialias = 1, exclude_outside = 1',
    "bilinear": 'mode = "linear", antialias = 1, exclude_outside = 1',
}


def preprocessing_graph(preprocessing: Preprocessing, opset: int = RESIZE_OPSET) -> onnx.ModelProto:
    """`images` uint8 [batch, height, width, channels] -> `normalised` float [batch, channels, size, size].

    Turning by EXIF is no part of it: that is done while a file is decoded. Raises UserError for an interpolation that
    ONNX Runtime does not do as Pillow does, and for an opset before `RESIZE_OPSET`.
    """
    if opset < RESIZE_OPSET:
        raise UserError(f"--embed_preprocess: needs --opset {RESIZE_OPSET} or more to resize in the graph, not {opset}")
    resize = _RESIZE.get(preprocessing.interpolation)
    if resize is None:
        raise UserError(
            f"--embed_preprocess: the graph resizes {' or '.join(_RESIZE)}, not {preprocessing.interpolation}"
        )
    size, channels = preprocessing.size, preprocessing.channels
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": {opset}]>
        preprocess (uint8[batch, height, width, {channels}] {IMAGES})
            => (float[batch, {channels}, {size}, {size}] {NORMALISED})
        <int64[1] short = {{{preprocessing.resize_size}}}, int64[2] side = {{{size}, {size}}}, int64[2] axes = {{2, 3}},
         float[1] half = {{0.5}}>
        {{
            planes = Transpose <perm = [0, 3, 1, 2]> ({IMAGES})
            old_size = Shape <start = 1, end = 3> ({IMAGES})
            old_short = ReduceMin <keepdims = 1> (old_size)
            scaled = Mul (old_size, short)
            new_size = Div (scaled, old_short)
            others = Shape <start = 0, end = 2> (planes)
            new_shape = Concat <axis = 0> (others, new_size)
            resized = Resize <{resize}> (planes, , , new_shape)
            spare = Sub (new_size, side)
            spare_float = Cast <to = 1> (spare)
            margin = Mul (spare_float, half)
            margin_even = Round (margin)
            first = Cast <to = 7> (margin_even)
            last = Add (first, side)
            crop = Slice (resized, first, last, axes)
            levels = Cast <to = 1> (crop)
            centred = Sub (levels, mean)
            {NORMALISED} = Div (centred, std)
        }}
    """)
    for name, levels in zip(("mean", "std"), preprocessing.levels, strict=True):
        model.graph.initializer.append(onnx.numpy_helper.from_array(levels, name))
    return model


def max_difference(preprocessing: Preprocessing, source: Source, max_pixels: int = MAX_PIXELS) -> float:
    """Maximum difference of the graph's crops of whole images from the host's, in levels of 0 to 255."""
    graph = preprocessing_graph(preprocessing)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    mean, std = preprocessing.levels
    difference = 0.0
    for index in range(len(source)):
        try:
            with only_this_image():
                image = read_image(source, index, preprocessing, max_pixels)
                expected = eval_crop(image, preprocessing, max_pixels).transpose(2, 0, 1)
        except BadImage:
            continue  # named when the crops were read
        batch = np.asarray(image).reshape(1, image.height, image.width, preprocessing.channels)
        found = session.run(None, {IMAGES: batch})[0][0] * std + mean
        difference = max(difference, float(np.abs(found - expected).max()))
    return difference
