"""A whole image folder looked at before it is trained on: what is broken, doubled, leaking or lopsided. Read only."""
