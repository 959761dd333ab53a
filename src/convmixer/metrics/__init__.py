"""How good answers are: sums over a split, and what follows from the answer to each of its images; NumPy."""
