"""What is broken, doubled, leaking or lopsided in an image folder, before it is trained on. It is only read."""
