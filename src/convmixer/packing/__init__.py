"""`convmixer pack`: a data set of any source written as tar shards, optionally made smaller."""
