"""Data sets: index, order, shards, batches."""
