"""ExecuTorch's program for phones, computed by XNNPACK."""

from __future__ import annotations

import warnings
from pathlib import Path

from convmixer.errors import UserError, first_line
from convmixer.exporters.format import Format, WriteSettings
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer


def write(model: ConvMixer, metadata: ModelMetadata, path: Path, settings: WriteSettings) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on how ExecuTorch reads its own files
            from convmixer.exporters.executorch import write_pte
    except ModuleNotFoundError as error:
        raise UserError(f"--file_format: EXECUTORCH needs {error.name}, pip install 'convmixer[executorch]'") from None
    except ImportError as error:
        raise UserError(
            f"--file_format: executorch is installed, but cannot be imported: {first_line(error)}"
        ) from None

    write_pte(model, metadata, path)


FORMAT = Format(".pte", write)
