"""Training: the loop, and what it needs around a model. This file imports nothing, so that options need no torch."""
