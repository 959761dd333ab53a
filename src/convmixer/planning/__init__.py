"""What is found out before a run: the learning rate by a range test, and what the run will take and is to mind."""
