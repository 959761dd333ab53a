"""Several processes: this one among them, the launcher, waiting for one another, leaving."""
