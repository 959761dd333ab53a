"""The formats that export writes, a module each, named as the option `file_format` has it.

Each has `FORMAT`, a `exporters.format.Format`.
"""
