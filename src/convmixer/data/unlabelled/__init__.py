"""Images without labels, from whatever a user names them by: files, folders, patterns, lists, addresses, shards."""
