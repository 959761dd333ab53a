"""Very many images to parts of answers, by one process or by many; whatever is killed goes on where it was."""
