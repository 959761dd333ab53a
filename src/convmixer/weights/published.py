"""Published ImageNet weights by name, fetched from the Hugging Face hub into its own cache and checked by their hash.

The files are the authors' weights in timm's layout, as timm's maintainers put them on the hub.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from convmixer.arch import VARIANTS, Architecture
from convmixer.data.classes import ClassMap
from convmixer.data.imagenet import imagenet_classes
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import RUN_FAILED, UserError, first_line
from convmixer.packages import needed_for

FILE = "model.safetensors"
_HUB = "https://huggingface.co"
_INPUT = Preprocessing(size=224, crop_pct=0.96, interpolation="bicubic", exif=False)


def endpoint() -> str | None:
    """The server that is asked instead of the hub, or None."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


@dataclass(frozen=True)
class Published:
    """A published weight file, and what it does not say itself.

    `sha256`: of the file, as its page on the hub states it, or None where only the hub's answer to a download tells.
    `preprocessing`: that of the published results.
    """

    name: str
    architecture: Architecture
    sha256: str | None
    preprocessing: Preprocessing = _INPUT

    @property
    def repo(self) -> str:
        return f"timm/{self.name}"

    @property
    def url(self) -> str:
        return f"{endpoint() or _HUB}/{self.repo}/resolve/main/{FILE}"

    @property
    def classes(self) -> ClassMap:
        return imagenet_classes()


PUBLISHED = {
    item.name: item
    for item in (
        Published(
            "convmixer_768_32.in1k",
            VARIANTS["convmixer_768_32"],
            "62ed5ec91004012a90d1a1ad043c4a74724ad444c82a277a6fff10803391743b",
        ),
        Published(
            "convmixer_1024_20_ks9_p14.in1k",
            VARIANTS["convmixer_1024_20"],
            "e9ee7c2d21eadc21b1538011aedb65d8122a368c5967ff01a1a9cbbaf8cc9571",
        ),
        Published("convmixer_1536_20.in1k", VARIANTS["convmixer_1536_20"], None),
    )
}


def published(path: Path) -> Published | None:
    """The published weights that are meant by a path: by the bare name, or by a file that was saved under it."""
    if path.is_file() or (path.parent == Path() and not path.exists()):
        return PUBLISHED.get(path.name)
    return None


def nearest(path: Path) -> str | None:
    """The name of published weights that was probably meant, for a message."""
    near = difflib.get_close_matches(str(path), PUBLISHED, n=1, cutoff=0.75)
    return near[0] if near else None


def fetch(item: Published) -> Path:
    """The file of published weights in the hub's cache, downloaded where it is not there yet, its hash compared.

    `HF_ENDPOINT` names another server than the hub. Raises UserError where huggingface_hub is missing, the download
    fails (exit code 1), or the content is not what was published (exit code 1).
    """
    by_hand = f"save {item.url} as {item.name} in this folder"
    with needed_for(item.name, otherwise=f"or {by_hand}"):
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, try_to_load_from_cache
    # What is in the cache is used unasked: the published files do not change, and the machine may be offline.
    cached = try_to_load_from_cache(item.repo, FILE)
    if not isinstance(cached, str):
        try:
            # Asked first because it fails at once: without a connection the download tries for half a minute.
            get_hf_file_metadata(item.url)
            cached = hf_hub_download(item.repo, FILE, endpoint=endpoint())
        except Exception as error:
            # Offline, refused, not found, cut off: there is no one class for these.
            reason = first_line(error)
            raise UserError(
                f"{item.name}: cannot be fetched from {item.url.rpartition('/' + item.repo)[0]}: "
                f"{reason.rstrip('.')}.\nWithout a connection, {by_hand}.",
                exit_code=RUN_FAILED,
            ) from None
    path = Path(cached)
    _check(item, path)
    return path


def _check(item: Published, path: Path) -> None:
    # The cache calls a file of Git LFS by the SHA-256 that the hub stated when it was downloaded.
    stated = path.resolve().name
    expected = item.sha256 or (stated if re.fullmatch(r"[0-9a-f]{64}", stated) else None)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is None:
        raise UserError(f"{path}: the hub did not state a SHA-256, so it cannot be checked", exit_code=RUN_FAILED)
    if found != expected:
        raise UserError(
            f"{path.resolve()}: is not {item.name} as published: its SHA-256 begins {found[:12]}, not "
            f"{expected[:12]}; delete it and try again",
            exit_code=RUN_FAILED,
        )
