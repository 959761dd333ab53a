"""The page that explains a run, or compares several: made from a run's record, its weights and its data."""
