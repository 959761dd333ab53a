"""One file a command: it parses, assembles, runs and prints."""
