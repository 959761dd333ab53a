"""Images in tar files (shards) as WebDataset names them, on a disk or at any address that fsspec knows. Nothing is
unpacked."""
