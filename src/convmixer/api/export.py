"""`convmixer.export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convmixer.api.options import PathLike, resolved_arguments
from convmixer.packages import needed_for

if TYPE_CHECKING:
    from convmixer.config.export import FileFormat
    from convmixer.exporters.proven import ExportResult


@needed_for("convmixer.export")
def export(
    weights: PathLike, output: PathLike | None = None, *, file_format: FileFormat = "ONNX", **options: Any
) -> ExportResult:
    """Export weights of any layout as a file of another format, or as a page (`file_format="web"`).

    It is compared with the weights before it is left there. `output`: the file, or a folder; left out: `<arch>.onnx`,
    `<arch>_web` and so on in the current folder. `options`: any that
    `convmixer export --help` lists. Raises UserError for what does not fit, and where the answers differ too much.
    """
    from convmixer.config.commands import EXPORT
    from convmixer.exporters.proven import export_weights

    given = {"pretrained": weights, "file_format": file_format, **options}
    return export_weights(resolved_arguments(EXPORT, given if output is None else {**given, "output": output}))
