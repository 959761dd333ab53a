"""The ImageNet classes against the lists that timm and torchvision carry."""

from __future__ import annotations

from timm.data import ImageNetInfo
from torchvision.models._meta import _IMAGENET_CATEGORIES

from convmixer.data.imagenet import imagenet_classes, readable


def test_classes_are_the_wordnet_ids_in_the_order_of_the_labels() -> None:
    info = ImageNetInfo()
    assert imagenet_classes().names == tuple(info.index_to_label_name(label) for label in range(1000))


def test_every_class_reads_as_torchvision_names_it() -> None:
    assert [readable(name) for name in imagenet_classes().names] == list(_IMAGENET_CATEGORIES)


def test_other_names_are_left_as_they_are() -> None:
    assert readable("tulip") == "tulip"
