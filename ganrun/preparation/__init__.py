"""Makes data sets: images from any source to WebDataset shards with an index."""
