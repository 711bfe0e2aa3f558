"""How data sets are made: pictures of any source to shards with an index."""
