"""A training run: `build` makes a `Trainer`, whose loop and step are `trainer` and `step`."""
