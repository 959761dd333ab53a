"""Data sets, a module each, named as the option `set` has it.

Each has `open_source(data_url, split_dir, *, train, classes) -> Source`, which opens a split: `split_dir` below the
folder `data_url`, or what of the set is for training or for evaluation. Its labels count in `classes` where they are
given. It raises UserError for what is not there, or is not as it should be.

Where the place of the data shows what it is, a module also has `accepts(data_url, split_dir) -> bool`: under the name
`splits.FOLDERS`, images by class in whatever container, its data are then opened by it. What two splits must not be to
each other it may refuse in `check_splits(data_url, train_dir, val_dir)`.
"""
