"""Data in: index, order, shards, stream; and how data sets are made."""
