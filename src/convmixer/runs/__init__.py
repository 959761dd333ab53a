"""The folders of a run and what is recorded in them; files written whole; one process per run."""
