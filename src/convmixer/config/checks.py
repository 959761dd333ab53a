"""Options of the commands that check a data set or the machine."""

from __future__ import annotations

from convmixer.config.data import DecodingOptions
from convmixer.config.log import LogOptions
from convmixer.config.options import Options, option
from convmixer.config.run import FolderOptions


class ImageFolderOptions(Options):
    """Data"""

    data: str | None = option(
        None,
        "folder of the data set",
        path=True,
        other_names="input image images img source src folder path i data_url data_dir data_path dataset",
    )
    train_dir: str = option("train", "folder of the training images, below DATA", path=True)
    val_dir: str | None = option("val", "folder of the evaluation images, below DATA; none: there is none", path=True)
    num_parallel_workers: int | None = option(
        None, "processes; left out: one for each core; 0: none beside this one", flags=("-j",), ge=0, le=256
    )


# Times the images of the smallest class that the largest may have before it is worth a word.
MAX_IMBALANCE = 10.0


class LimitOptions(Options):
    """Limits"""

    image_size: int = option(32, "images with a side of fewer pixels are very small", ge=1, le=4096)
    max_imbalance: float = option(
        MAX_IMBALANCE, "times the images of the smallest class that the largest may have", ge=1
    )


class ReportOptions(Options):
    """Reports, besides the text on stdout"""

    json_file: str | None = option(None, "all findings as JSON; not below DATA", also="json", path=True)
    html_file: str | None = option(None, "a page to look at; not below DATA", also="html", path=True)


class CheckDataOptions(LogOptions, ReportOptions, LimitOptions, DecodingOptions, ImageFolderOptions):
    """Options of `check-data`."""


class RunsOptions(LogOptions, FolderOptions):
    """Runs"""

    json_file: str | None = option(None, "the runs as JSON", also="json", path=True)


class RunReportOptions(LogOptions):
    """Report"""

    runs: tuple[str, ...] = option((), "runs, by their folders or names", path=True)
    output: str | None = option(
        None,
        "page of several runs; left out: runs.html in the current folder",
        flags=("-o",),
        path=True,
        other_names="out o html",
    )


class DoctorOptions(LogOptions, FolderOptions):
    """Machine"""

    json_file: str | None = option(None, "the answers as JSON", also="json", path=True)
