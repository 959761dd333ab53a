"""Options of what an evaluation tells beside its line."""

from __future__ import annotations

from typing import Literal

from convmixer.config.options import Options, option

TestTimeAugmentation = Literal["none", "flip", "crops"]


class ScoreOptions(Options):
    """Evaluation"""

    tta: TestTimeAugmentation = option(
        "none",
        "mean answer to views of an image; flip: and its mirror image; crops: five crops and theirs",
        other_names="test_time_augmentation ten_crop",
        commands="eval",
    )
    json_file: str | None = option(
        None,
        "JSON file of all metrics: by class, confusion matrix, calibration",
        also="json",
        path=True,
        other_names="output out o",
        commands="eval",
    )
    csv_file: str | None = option(None, "CSV file of the answer to each image", also="csv", path=True, commands="eval")
