"""The files of the npm package onnxruntime-web that an exported page runs its network with.

They are fetched by npm once and kept, or come from where the user says. Whatever they come from, each is the one whose
SHA-256 stands here: a page is tested with these bytes.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import shutil
import subprocess
import tarfile
import tempfile
from base64 import b64encode
from pathlib import Path

from convmixer.errors import RUN_FAILED, UserError
from convmixer.runs.durable import write_file
from convmixer.user_cache import user_cache

logger = logging.getLogger(__name__)

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# What npm says of the package's archive, `npm view onnxruntime-web@1.30.0 dist.integrity`.
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# The build for WebAssembly alone, its loader in one piece with it; SHA-256 of each.
FILES = {
    "dist/ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "dist/ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
_OTHERWISE = f"--ort_web names that npm package where it is already, unpacked or as {PACKAGE}-{VERSION}.tgz"
_NPM_SECONDS = 600


def runtime_files(given: str | None) -> dict[str, bytes]:
    """The content of FILES by their names: of `given`, the package's folder or archive, else kept or fetched by npm.

    Raises UserError where `given` is not that package in that version, and where npm is not there or (exit 1) fails.
    """
    if given is not None:
        return _named(Path(given))
    folder = user_cache(PACKAGE) / VERSION
    kept = _in_folder(folder)
    if kept is None:
        kept = _fetched()
        _keep(folder, kept)
    return kept


def _named(path: Path) -> dict[str, bytes]:
    if not path.exists():
        raise UserError(f"--ort_web: there is no file or folder {path}")
    try:
        found = _in_folder(path) if path.is_dir() else _in_archive(path.read_bytes())
    except OSError as error:
        raise UserError(f"--ort_web: {path}: cannot be read: {error.strerror}") from None
    if found is None:
        raise UserError(f"--ort_web: {path} is not the npm package {PACKAGE} {VERSION}")
    return found


def _in_folder(folder: Path) -> dict[str, bytes] | None:
    """The files of an unpacked package; None where one is not there or is another."""
    try:
        return _checked({name: (folder / name).read_bytes() for name in FILES})
    except (FileNotFoundError, NotADirectoryError):
        return None


def _in_archive(archive: bytes) -> dict[str, bytes] | None:
    """The files of the package's .tgz; None for another archive, of which nothing is unpacked."""
    if f"sha512-{b64encode(hashlib.sha512(archive).digest()).decode()}" != INTEGRITY:
        return None
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for name in FILES:
            member = tar.extractfile(f"package/{name}")
            assert member is not None
            found[name] = member.read()
    return _checked(found)


def _checked(found: dict[str, bytes]) -> dict[str, bytes] | None:
    is_right = all(hashlib.sha256(content).hexdigest() == FILES[name] for name, content in found.items())
    return found if is_right else None


def _fetched() -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"WEB needs {PACKAGE} {VERSION}, and there is no npm to fetch it; {_OTHERWISE}")
    logger.info(f"npm fetches {PACKAGE} {VERSION}, 33 MB, once")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_NPM_SECONDS)
            reason = _reason(done.stderr) if done.returncode else None
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = type(error).__name__
        if reason is not None:
            raise UserError(f"npm could not fetch {PACKAGE} {VERSION} ({reason}); {_OTHERWISE}", exit_code=RUN_FAILED)
        archives = list(Path(folder).glob("*.tgz"))
        found = _in_archive(archives[0].read_bytes()) if archives else None
    if found is None:
        raise UserError(
            f"what npm fetched as {PACKAGE} {VERSION} does not have the package's SHA-512; {_OTHERWISE}",
            exit_code=RUN_FAILED,
        )
    return found


def _reason(stderr: str) -> str:
    """npm's word for what went wrong, as ENOTFOUND."""
    code = re.search(r"npm (?:error|ERR!) code (\S+)", stderr)
    return code[1] if code else "it gave no reason"


def _keep(folder: Path, files: dict[str, bytes]) -> None:
    """Store what was fetched for the next time; where the disk refuses, that fetches again."""
    try:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_file(folder / name, content)
    except OSError as error:
        logger.warning(f"{folder}: cannot be kept there: {error.strerror}")
