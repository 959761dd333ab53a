"""`convmixer similar`: pairs of images that look alike to a network, or the nearest to some of them."""

from __future__ import annotations

import logging
from pathlib import Path

from convmixer.cli.named_images import named_images
from convmixer.cli.output_file import as_json, check_writable, write_output
from convmixer.config.command import Command
from convmixer.config.resolved import Resolved
from convmixer.config.similar import SimilarOptions
from convmixer.errors import RUN_FAILED, UserError
from convmixer.inference import features_of
from convmixer.model_opening import open_for_inference
from convmixer.printable import printable
from convmixer.similarity import alike, directions, nearest

logger = logging.getLogger(__name__)

COMMAND = Command(
    "similar",
    "Find pairs of images in DATA that look alike to a network, near duplicates above all, or with --query the images "
    "that are nearest to others. A line is the cosine and two paths, with tabs between them.",
    SimilarOptions,
    positional="data",
)


def run(resolved: Resolved[SimilarOptions]) -> int:
    options = resolved.options
    json_file = check_writable(options.json_file, "--json")
    if options.checkpoint is None:
        raise UserError("--checkpoint: a weight file or a checkpoint folder is needed")
    images = named_images(options.data, options)
    queries = named_images(options.query, options) if options.query else None
    model = open_for_inference(resolved, len(images) + (0 if queries is None else len(queries)))
    features, places, bad = features_of(resolved, model, images)
    if queries is None:
        pairs = alike(directions(features), options.min_similarity)
        found = [(cosine, images.name(places[left]), images.name(places[right])) for left, right, cosine in pairs]
        found.sort(key=lambda pair: -pair[0])
    else:
        asked, asked_places, asked_bad = features_of(resolved, model, queries)
        bad += asked_bad
        origin = features.mean(axis=0)
        order, cosines = nearest(directions(asked, origin), directions(features, origin), options.neighbours)
        found = [
            (float(cosine), queries.name(asked_places[number]), images.name(places[place]))
            for number in range(len(asked))
            for place, cosine in zip(order[number].tolist(), cosines[number].tolist(), strict=True)
        ]
    for cosine, first, second in found:
        print(f"{cosine:.4f}\t{printable(first)}\t{printable(second)}")
    if json_file is not None:
        keys = ("first", "second") if queries is None else ("query", "neighbour")
        record = [{"similarity": cosine, keys[0]: first, keys[1]: second} for cosine, first, second in found]
        write_output(Path(json_file), as_json(record), "written")
    kind = f"pairs with a similarity of {options.min_similarity:g} or more" if queries is None else "neighbours"
    logger.info(f"{len(found)} {kind} among {len(features)} images")
    return RUN_FAILED if bad else 0
