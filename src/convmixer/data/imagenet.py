"""The 1,000 classes of ImageNet-1k: the WordNet ids that its folders are named by, and what they mean in words.

A network's classes are the folders that it was trained on, so those of ImageNet networks are WordNet ids, in this
order, whoever trained them. The words are for reading only.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from convmixer.data.classes import ClassMap


@cache
def _words() -> dict[str, str]:
    """WordNet id -> words, in the order of the labels."""
    text = (files("convmixer.data") / "imagenet_classes.txt").read_text(encoding="utf-8")
    return dict(line.split(" ", maxsplit=1) for line in text.splitlines())


def imagenet_classes() -> ClassMap:
    """The classes of every published ImageNet-1k network: `n01440764` (tench) is 0."""
    return ClassMap(tuple(_words()))


def readable(name: str) -> str:
    """The words of an ImageNet class, as `tench` for `n01440764`; any other name as it is."""
    return _words().get(name, name)
