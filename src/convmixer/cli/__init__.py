"""One file per command: it parses, assembles, runs and prints."""
