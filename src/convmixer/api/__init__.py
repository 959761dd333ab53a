"""The functions that `convmixer` offers in Python; the commands are thin over the same parts."""
