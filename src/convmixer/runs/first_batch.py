"""What the first batch of a run looked like: a picture of its images side by side, and their targets."""

from __future__ import annotations

BATCH_PICTURE, BATCH_RECORD = "first_batch.png", "first_batch.json"
