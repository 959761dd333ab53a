"""The splits of a data set: where they lie, opened by the name of its source (`data.sources`), labelled for a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from convmixer.data.classes import ClassMap, numbered
from convmixer.data.holdout import FRACTION, HeldOut, hold_out
from convmixer.data.layout import find_layout
from convmixer.data.source import Source
from convmixer.data.sources import imagenet
from convmixer.errors import RUN_FAILED, UserError
from convmixer.plugins import module_of, names_in

if TYPE_CHECKING:
    from convmixer.config.schema import Config

SOURCES = "data.sources"
# The set whose name stands for images by class, in folders or any other container.
FOLDERS = "imagenet"


@dataclass(frozen=True)
class Splits:
    """Where the two splits of a data set lie, found and not opened yet.

    `val_dir` None: there are no evaluation images, and `fraction` of the training images is held out by `seed`.
    `remark`: a line on what was found, where that is not what the options say.
    """

    set_name: str
    data_url: str | None
    train_dir: str
    val_dir: str | None
    fraction: float = FRACTION
    seed: int = 0
    remark: str | None = None

    def laid_out(self, option: str = "--data_url") -> Splits:
        """These, or what an image folder has in their place; `option`: what the user sets the data with.

        Raises UserError for a folder that is laid out in no way that is known.
        """
        if self.data_url is None or source_of(self.set_name, self.data_url, self.train_dir) != FOLDERS:
            return self
        assert self.val_dir is not None
        layout = find_layout(imagenet.checked_folder(self.data_url), self.train_dir, self.val_dir, option)
        return replace(self, train_dir=layout.train_dir, val_dir=layout.val_dir, remark=layout.remark)

    def open_train(self, classes: ClassMap | None = None) -> Source:
        """The images for training, with those that are to be held out."""
        return open_split(self.set_name, self.data_url, self.train_dir, train=True, classes=classes)

    def open_val(self, classes: ClassMap | None = None) -> Source:
        """The evaluation images; where there are none, all of them."""
        if self.val_dir is None:
            return self.open_train(classes)
        return open_split(self.set_name, self.data_url, self.val_dir, train=False, classes=classes)

    def hold_out(self, source: Source, record: Mapping[str, bool] | None = None) -> HeldOut:
        """The images for training in two parts; `record`: how an earlier run has split them."""
        return hold_out(source, self.data_url, self.fraction, self.seed, record)


def find_splits(config: Config) -> Splits:
    """The splits that the options of the data name, or that an image folder has in their place.

    Raises UserError for a folder that is laid out in no way that is known, and where the two would not be two.
    """
    fraction = FRACTION if config.val_fraction is None else config.val_fraction
    asked = Splits(config.set, config.data_url, config.train_dir, config.val_dir, fraction, config.seed)
    found = asked.laid_out()
    if config.val_fraction is not None:
        found = replace(found, val_dir=None)
    if found.val_dir is not None:
        check_splits(found.set_name, found.data_url, found.train_dir, found.val_dir)
    return found


def open_split(
    set_name: str,
    data_url: str | None,
    split_dir: str,
    *,
    train: bool,
    classes: ClassMap | None = None,
) -> Source:
    """A split of the data set `set_name`, in any case of its letters.

    `split_dir`: the folder below `data_url` of a set that has folders. `classes`: those that labels count in, where the
    training set or the weights have fixed them. Raises UserError for a set or folder that is not there, or that is not
    as it should be.
    """
    name = source_of(set_name, data_url, split_dir)
    source: Source = module_of(SOURCES, name).open_source(data_url, split_dir, train=train, classes=classes)
    if classes is not None and classes != source.classes:
        raise UserError(f"--set: the classes of {name} are not those that were trained on", exit_code=RUN_FAILED)
    return source


def source_of(set_name: str, data_url: str | None, split_dir: str) -> str:
    """The name of the source that opens a split of the set `set_name`."""
    name, known = set_name.lower(), names_in(SOURCES)
    if name not in known:
        raise UserError(f"--set: {set_name!r} is none of {', '.join(known)}")
    if name != FOLDERS or data_url is None:
        return name
    return next((other for other in known if _accepts(other, data_url, split_dir)), name)


def _accepts(name: str, data_url: str, split_dir: str) -> bool:
    accepts = getattr(module_of(SOURCES, name), "accepts", None)
    return accepts is not None and bool(accepts(data_url, split_dir))


def check_splits(set_name: str, data_url: str | None, train_dir: str, val_dir: str) -> None:
    """Raise UserError where the two splits of a data set would not be two."""
    check = getattr(module_of(SOURCES, source_of(set_name, data_url, train_dir)), "check_splits", None)
    if check is not None and data_url is not None:
        check(data_url, train_dir, val_dir)


def open_unnamed(outputs: int, opener: Callable[[ClassMap | None], Source], say: Callable[[str], None]) -> Source:
    """What `opener` gives, labelled for a model of so many outputs that names no classes, which `say` reports.

    Labels are the positions of the sorted names, but for classes named 0 ... n-1 these numbers.
    """
    source = opener(None)
    order = numbered(source.classes) if len(source.classes) == outputs else None
    if order is None:
        return source
    say(f"the weights name no classes; the data's, 0 to {outputs - 1}, are taken for their outputs by their numbers")
    return source if order == source.classes else opener(order)
