"""One process that serves, or several behind one address; started anew where one dies, and stopped in peace."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess

from convmixer.backends.model_file import ModelFile
from convmixer.config.resolved import Resolved
from convmixer.config.serve import ServeOptions
from convmixer.data.worker_pool import end_with_the_parent
from convmixer.errors import RUN_FAILED, UserError
from convmixer.model_opening import open_tuned
from convmixer.serve.protocol import ImpatientProtocol
from convmixer.terminal import logs

logger = logging.getLogger(__name__)

TOKEN = "CONVMIXER_TOKEN"
_BACKLOG = 2048


def token_of(options: ServeOptions) -> str | None:
    """The token that requests need: the option's, else the environment's."""
    return options.token or os.environ.get(TOKEN) or None


def make_app(resolved: Resolved[ServeOptions]) -> Starlette:
    """The application of one process, its model warm. Raises UserError for a model that does not run."""
    # prometheus_client reads its variable as it is imported.
    from convmixer.serve.app import Server
    from convmixer.serve.classifier import Classifier
    from convmixer.serve.observed import Observed

    options, observed = resolved.options, Observed()
    classifier = Classifier(_opened(resolved), options, observed.batch)
    classifier.warm()
    return Server(classifier, options, observed, token_of(options)).app()


def _opened(resolved: Resolved[ServeOptions]) -> ModelFile:
    options = resolved.options
    assert options.model is not None
    return open_tuned(resolved, options.model, None, options.max_batch)


def listening(options: ServeOptions) -> socket.socket:
    """A socket at the address. Raises UserError where it cannot be had."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        is_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        remedy = "another --port, or 0 for any that is free" if is_port else "--host is an address of this machine"
        raise UserError(
            f"--host, --port: {options.host}:{options.port} cannot be listened at: {error.strerror}; {remedy}"
        ) from None
    listener.set_inheritable(True)
    return listener


def serve(resolved: Resolved[ServeOptions], listener: socket.socket) -> int:
    """Serve until a signal comes, and return the exit code: 128 and its number. Raises UserError as `make_app`."""
    if resolved.options.workers == 1:
        server = _Server(_config(resolved.options, make_app(resolved)))
        _say_where(resolved.options, listener)
        server.run(sockets=[listener])
        return 128 + server.stopped_by if server.stopped_by else 0
    _opened(resolved)  # what is wrong with the model is said once, and its backends are timed once
    with _shared_metrics():
        config = _config(resolved.options, partial(_app_of_worker, resolved), factory=True)
        supervisor = _Supervisor(config, [listener])
        _say_where(resolved.options, listener)
        supervisor.run()
    return 128 + supervisor.stopped_by if supervisor.stopped_by else RUN_FAILED


def _config(options: ServeOptions, app: Any, *, factory: bool = False) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=factory,
        workers=options.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        http=ImpatientProtocol,
        timeout_keep_alive=max(round(options.timeout), 1),
        timeout_graceful_shutdown=max(int(options.grace), 1),
        backlog=_BACKLOG,
        lifespan="on",
    )


class _Server(uvicorn.Server):
    """Uvicorn's, which remembers the signal that stops it in place of dying of it."""

    stopped_by = 0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        def receive(number: int, frame: object) -> None:
            self.stopped_by = self.stopped_by or number
            self.handle_exit(number, None)

        before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Supervisor(Multiprocess):
    """Uvicorn's, which starts anew what dies; it remembers the signal that stops it."""

    stopped_by = 0

    def handle_int(self) -> None:
        """Ctrl-C."""
        self.stopped_by = signal.SIGINT
        super().handle_int()

    def handle_term(self) -> None:
        """A service manager's stop."""
        self.stopped_by = signal.SIGTERM
        super().handle_term()


def _app_of_worker(resolved: Resolved[ServeOptions]) -> Starlette:
    threading.Thread(target=end_with_the_parent, daemon=True).start()
    logs.configure(resolved.options)
    return make_app(resolved)


@contextlib.contextmanager
def _shared_metrics() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="convmixer-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["PROMETHEUS_MULTIPROC_DIR"]


def _say_where(options: ServeOptions, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{port}/", flush=True)
    logger.info(f"serving {options.model}; Ctrl-C stops it")
