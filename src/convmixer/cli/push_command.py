"""`convmixer push`: weights, recipe and model card as a repository of the Hugging Face hub."""

from __future__ import annotations

import logging
import re
import tempfile
from pathlib import Path
from typing import Any

from convmixer.cli.weight_source import open_checked
from convmixer.config.command import Command
from convmixer.config.convert import PushOptions
from convmixer.config.recipes import find_recipe, read_recipe
from convmixer.config.resolved import Resolved
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import RUN_FAILED, UserError, first_line
from convmixer.packages import needed_for

logger = logging.getLogger(__name__)

COMMAND = Command("push", "Publish weights on the Hugging Face hub, for timm too.", PushOptions, positional="weights")


def run(resolved: Resolved[PushOptions]) -> int:
    options = resolved.options
    if options.repo is None or not re.fullmatch(r"[\w.-]+/[\w.-]+", options.repo):
        raise UserError(f"--repo: a repository is named user/name{f', not {options.repo}' if options.repo else ''}")
    folder = _output_folder(options)
    hub = None if options.dry_run else _hub()
    recipe = None if options.recipe is None else read_recipe(find_recipe(options.recipe))
    weights, architecture = open_checked(options)
    from convmixer.exporters.hub import Publication, timm_name, write_folder

    preprocessing = weights.preprocessing
    if preprocessing is None:
        if architecture.in_chans != 3:
            raise UserError(f"{weights.path}: says no preprocessing, and there is no default for its channels")
        preprocessing = Preprocessing()
        logger.info(
            f"{weights.path}: says no preprocessing; ImageNet's at {preprocessing.size} pixels is published with it"
        )
    item = Publication(options.repo, weights, architecture, preprocessing, recipe, options.license)
    if timm_name(architecture) is None:
        logger.info(f"timm cannot build {architecture.name} of this shape; the repository serves convmixer only")
    with tempfile.TemporaryDirectory() as temporary:
        target = folder or Path(temporary)
        try:
            target.mkdir(parents=True, exist_ok=True)
            write_folder(target, item)
        except OSError as error:
            raise UserError(f"{target}: cannot be written: {error.strerror}", exit_code=RUN_FAILED) from None
        if hub is not None:
            print(_upload(hub, options, target))
    if folder is not None:
        logger.info(f"written to {folder}")
    return 0


def _output_folder(options: PushOptions) -> Path | None:
    """The folder to keep, or None. Raises UserError for one that has something in it."""
    if options.output is None and not options.dry_run:
        return None
    folder = Path(options.output or str(options.repo).rpartition("/")[2])
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; name an empty or new folder with --output")
    return folder


def _hub() -> Any:
    with needed_for("push", otherwise="--dry_run works without"):
        from huggingface_hub import HfApi
    from convmixer.weights.published import endpoint

    return HfApi(endpoint=endpoint())


def _upload(hub: Any, options: PushOptions, folder: Path) -> str:
    """Upload the folder and return the address of the commit."""
    try:
        hub.create_repo(options.repo, private=options.private, exist_ok=True)
        return str(hub.upload_folder(repo_id=options.repo, folder_path=folder, commit_message="Add model"))
    except Exception as error:
        # Not logged in, not allowed, no connection: there is no one class for these.
        reason = first_line(error)
        raise UserError(
            f"{options.repo}: cannot be uploaded: {reason.rstrip('.')}.\n`hf auth login` logs in.",
            exit_code=RUN_FAILED,
        ) from None
