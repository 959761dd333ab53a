"""The splits of a data set, opened by the name of its source (`data.sources`) and labelled for a model."""

from __future__ import annotations

from collections.abc import Callable

from convmixer.data.classes import ClassMap, numbered
from convmixer.data.source import Source, seeded_subset
from convmixer.errors import RUN_FAILED, UserError
from convmixer.plugins import module_of, names_in

SOURCES = "data.sources"
# The set whose name stands for images by class, in folders or any other container.
FOLDERS = "imagenet"


def open_split(
    set_name: str,
    data_url: str | None,
    split_dir: str,
    *,
    train: bool,
    classes: ClassMap | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Source:
    """A split of the data set `set_name`, in any case of its letters.

    `split_dir`: the folder below `data_url` of a set that has folders. `classes`: those that labels count in, where the
    training set or the weights have fixed them. `limit`: so many images, drawn by `seed`, in their old order. Raises
    UserError for a set or folder that is not there, or that is not as it should be.
    """
    name = source_of(set_name, data_url, split_dir)
    source: Source = module_of(SOURCES, name).open_source(data_url, split_dir, train=train, classes=classes)
    if classes is not None and classes != source.classes:
        raise UserError(f"--set: the classes of {name} are not those that were trained on", exit_code=RUN_FAILED)
    return source if limit is None else seeded_subset(source, limit, seed)


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
