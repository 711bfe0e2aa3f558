"""Data in: index, order, shards, batches."""
