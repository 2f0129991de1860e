"""Several processes that share the partitions of one pipeline: a door above it."""
