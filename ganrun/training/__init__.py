"""Training state, a player's step, the loop, EMA, checkpoints, metrics."""
