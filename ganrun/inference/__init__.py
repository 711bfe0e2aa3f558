"""From a checkpoint to images, scores and programs."""
