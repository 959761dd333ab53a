"""The measured choice between the backends of a network."""
