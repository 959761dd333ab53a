"""Errors that no command looked at before, turned into what the user can do about them."""

from __future__ import annotations

import errno

from convmixer.errors import RUN_FAILED, WRONG_USE, UserError

# Package -> what pip installs for it, where it is not the package itself.
_EXTRAS = {
    "onnx": "'convmixer[onnx]'",
    "onnxruntime": "'convmixer[onnx]'",
    "onnxscript": "'convmixer[onnx]'",
    "openvino": "'convmixer[openvino]'",
    "pytorch_optimizer": "'convmixer[optimizers]'",
    "huggingface_hub": "'convmixer[hub]'",
    "mindspore": "'convmixer[mindspore]'",
    "PIL": "pillow",
    "yaml": "pyyaml",
}

# What no path that can be used ends with.
_PATH_ERRORS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT)


def user_error_for(command: str, error: BaseException) -> UserError | None:
    """The UserError that an error of a command stands for, itself where it is one; None for a bug of ours."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, ImportError):
        package = (error.name or "").partition(".")[0]
        return None if package in ("", "convmixer") else UserError(_cannot_import(command, package, error))
    if isinstance(error, MemoryError):
        reason = str(error).rstrip(".") or "out of memory"
        return UserError(f"{reason}; a smaller batch_size takes less", exit_code=RUN_FAILED)
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError) and error.filename and error.strerror:
        code = WRONG_USE if error.errno in _PATH_ERRORS else RUN_FAILED
        return UserError(f"{error.filename}: {error.strerror}", exit_code=code)
    return None


def _cannot_import(command: str, package: str, error: ImportError) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{command} needs {package}, which is not installed: pip install {_EXTRAS.get(package, package)}"
    return f"{package} is installed, but cannot be imported: {error}\n`convmixer doctor` tells more."
