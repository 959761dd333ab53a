from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chisquare, ks_2samp
from timm.data import create_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from convmixer.data.crops import CROP_DRAWS, cut, eval_crop, random_crop_box, reduction_of, train_crop
from convmixer.data.limits import BadImage
from convmixer.data.preprocessing import Preprocessing


def photo(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size_and_crop", [(64, 0.96), (64, 0.875), (63, 1.0), (32, 0.5)])
@pytest.mark.parametrize("image_size", [(150, 101), (101, 150), (97, 97), (20, 33), (67, 66), (64, 64)])
def test_eval_crop_is_timms(image_size: tuple[int, int], size_and_crop: tuple[int, float], interpolation: str) -> None:
    size, crop_pct = size_and_crop
    image = photo(*image_size)
    oracle = create_transform(size, is_training=False, interpolation=interpolation, crop_pct=crop_pct, normalize=False)
    preprocessing = Preprocessing(size=size, crop_pct=crop_pct, interpolation=interpolation)
    expected = oracle(image).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(eval_crop(image, preprocessing), expected)


def test_eval_crop_of_the_size_wanted_is_the_image() -> None:
    image = photo(32, 32, "L")
    crop = eval_crop(image, Preprocessing(size=32, crop_pct=1.0, mean=(0.5,), std=(0.5,)))
    assert crop.dtype == np.uint8
    np.testing.assert_array_equal(crop, np.asarray(image)[..., None])


def test_eval_crop_refuses_what_would_not_fit_into_memory() -> None:
    with pytest.raises(BadImage, match="1 x 60000"):
        eval_crop(Image.new("RGB", (1, 60_000)), Preprocessing(size=224))


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("bilinear", InterpolationMode.BILINEAR),
        ("bicubic", InterpolationMode.BICUBIC),
        ("lanczos", InterpolationMode.LANCZOS),
        ("nearest", InterpolationMode.NEAREST),
    ],
)
@pytest.mark.parametrize("colour", ["RGB", "L"])
def test_train_crop_is_torchvisions_resized_crop(name: str, mode: InterpolationMode, colour: str) -> None:
    image = photo(90, 70, colour)
    for seed in range(5):
        uniforms = np.random.default_rng(seed).random(CROP_DRAWS)
        left, top, width, height = random_crop_box(90, 70, uniforms, (0.1, 1.0))
        expected = np.asarray(tv.resized_crop(image, top, left, height, width, [32, 32], mode)).reshape(32, 32, -1)
        np.testing.assert_array_equal(train_crop(image, 32, uniforms, (0.1, 1.0), interpolation=name), expected)


def test_random_interpolation_is_bilinear_or_bicubic_evenly() -> None:
    image = photo(40, 40)
    counts = {"bilinear": 0, "bicubic": 0}
    for uniforms in np.random.default_rng(0).random((200, CROP_DRAWS)):
        crop = train_crop(image, 16, uniforms)
        same = [name for name in counts if (crop == train_crop(image, 16, uniforms, interpolation=name)).all()]
        assert len(same) == 1
        counts[same[0]] += 1
    assert chisquare(list(counts.values())).pvalue > 0.01


@pytest.mark.parametrize("image_size", [(200, 150), (150, 200), (97, 97), (400, 60)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.875, 1.0)])
def test_crop_boxes_are_distributed_as_timms(image_size: tuple[int, int], scale: tuple[float, float]) -> None:
    width, height = image_size
    image = Image.new("L", image_size)
    random.seed(0)
    theirs = [RandomResizedCropAndInterpolation.get_params(image, scale, (3 / 4, 4 / 3)) for _ in range(4000)]
    draws = np.random.default_rng(1).random((4000, CROP_DRAWS))
    ours = np.array([random_crop_box(width, height, uniforms, scale) for uniforms in draws])
    expected = np.array(theirs)[:, [1, 0, 3, 2]]  # timm: top, left, height, width

    measures: list[Callable[[np.ndarray], np.ndarray]] = [
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 2] / box[:, 3],
        lambda box: box[:, 0],
        lambda box: box[:, 1],
        lambda box: box[:, 0] + box[:, 2],
        lambda box: box[:, 1] + box[:, 3],
    ]
    for measure in measures:
        assert ks_2samp(measure(ours), measure(expected)).pvalue > 0.001


@pytest.mark.parametrize(
    ("image_size", "box"),
    [
        ((1000, 10), (493, 0, 13, 10)),  # 10 * 4/3 = 13.3 wide, (1000 - 13) // 2 from the left
        ((10, 1000), (0, 493, 10, 13)),  # 10 / (3/4) = 13.3 high
    ],
)
def test_long_images_fall_back_to_the_centre(image_size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    assert random_crop_box(*image_size, np.full(CROP_DRAWS, 0.999), (0.9, 1.0)) == box


@pytest.mark.parametrize("image_size", [(1, 1), (1, 7), (3, 2), (1, 5000)])
def test_boxes_of_tiny_images_hold_a_pixel_and_lie_inside(image_size: tuple[int, int]) -> None:
    for uniforms in [*np.random.default_rng(0).random((300, CROP_DRAWS)), np.full(CROP_DRAWS, math.nextafter(1, 0))]:
        left, top, width, height = random_crop_box(*image_size, uniforms, (0.01, 1.0))
        assert 0 <= left < left + width <= image_size[0]
        assert 0 <= top < top + height <= image_size[1]
    assert train_crop(photo(*image_size), 8, uniforms).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("width", "height", "factor"),
    [(223, 5000, 1), (447, 448, 1), (448, 448, 2), (900, 895, 2), (896, 3000, 4), (1792, 1792, 8), (9999, 9999, 8)],
)
def test_sides_are_divided_while_a_box_still_has_the_pixels_that_it_is_resized_to(
    width: int, height: int, factor: int
) -> None:
    assert reduction_of((3, 5, width, height), 224) == factor


def test_the_same_part_is_cut_out_of_an_image_that_came_smaller() -> None:
    # Levels that rise along each axis, so that a mean says where a part lies.
    whole = np.zeros((640, 800, 3), np.float64)
    whole[..., 0], whole[..., 1] = np.arange(800), np.arange(640)[:, None]
    for factor in (2, 4, 8):
        small = whole.reshape(640 // factor, factor, 800 // factor, factor, 3).mean((1, 3))
        for uniforms in np.random.default_rng(factor).random((50, CROP_DRAWS)):
            box = random_crop_box(800, 640, uniforms)
            part, same = cut(whole, box, (800, 640)), cut(small, box, (800, 640))
            assert part.shape == (box[3], box[2], 3)
            assert np.abs(np.array(same.shape[:2]) - np.array(part.shape[:2]) / factor).max() <= 0.5
            assert np.abs(part.mean((0, 1)) - same.mean((0, 1))).max() <= factor
    # An odd side is rounded up when it is divided: the last box may not reach beyond it.
    assert cut(np.zeros((38, 51, 1)), (0, 0, 403, 301), (403, 301)).shape == (38, 51, 1)
    # And one pixel is left of any box, as of those of an image above the limit of pixels, which always comes smaller.
    for left, top in ((402, 300), (0, 0), (200, 150)):
        assert cut(np.zeros((38, 51, 1)), (left, top, 1, 1), (403, 301)).shape == (1, 1, 1)
