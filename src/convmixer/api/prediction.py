"""`convmixer.predict`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convmixer.api.options import PathLike, resolved_arguments
from convmixer.packages import needed_for

if TYPE_CHECKING:
    from convmixer.api.images import Images
    from convmixer.prediction import Prediction


@needed_for("convmixer.predict")
def predict(
    weights: PathLike, images: Images, *, topk: int = 5, recursive: bool = False, **options: Any
) -> list[Prediction]:
    """Classify images by weights of any layout, a checkpoint folder, an ONNX or a MINDIR file.

    `images`: a path, a folder, a Pillow image, an array (uint8, [height, width, channels]), or a list of these.
    `options`: any of `convmixer infer`. One answer per image, in their order; of an image that cannot be read it is a
    `fault`. For many calls `load_model` opens the weights once. Raises UserError for what does not fit.
    """
    from convmixer.api.images import open_images
    from convmixer.config.commands import INFER
    from convmixer.inference import predictions
    from convmixer.model_opening import open_for_inference

    given = {"checkpoint": weights, "topk": topk, **options}
    resolved = resolved_arguments(INFER, given)
    source = open_images(images, recursive=recursive)
    return list(predictions(resolved, open_for_inference(resolved, len(source)), source))
