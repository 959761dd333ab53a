"""Weights of a ConvMixer, read by content and written in any layout.

`read` and `write` do files, `load` puts them into a model; `layouts` and `mindspore_ckpt` need no torch, and so nothing
is imported here.
"""
