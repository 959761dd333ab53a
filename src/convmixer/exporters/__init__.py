"""Exported files, and the parity gate that each passes."""
