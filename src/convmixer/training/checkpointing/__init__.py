"""What survives a stop: the state, checkpoint folders, their manager, and resuming."""
