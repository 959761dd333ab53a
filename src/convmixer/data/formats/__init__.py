"""Image formats: which there are, and for each what is checked of a file before a decoder sees it."""
