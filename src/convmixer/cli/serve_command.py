"""`convmixer serve`: a model behind HTTP, with a page for people."""

from __future__ import annotations

from convmixer.config.command import Command
from convmixer.config.resolved import Resolved
from convmixer.config.serve import ServeOptions
from convmixer.errors import UserError

COMMAND = Command(
    "serve",
    "Serve a model: a page where photos are dropped, and POST /predict for programs. It listens at this machine's own "
    "address alone unless --host says otherwise.",
    ServeOptions,
    positional="model",
)


def run(resolved: Resolved[ServeOptions]) -> int:
    if resolved.options.model is None:
        raise UserError("MODEL: weights or a model file are needed, as in convmixer serve runs/best")
    # Not before: the packages are an extra.
    from convmixer.serve.running import listening, serve

    with listening(resolved.options) as listener:
        return serve(resolved, listener)
