"""An image folder is inspected before it is trained on: what is broken, doubled, leaking or lopsided. It is only read."""
