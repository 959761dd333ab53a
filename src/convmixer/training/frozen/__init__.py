"""Training of the head alone, on features that are computed once: `--freeze`."""
