"""Population-based training on Ray Tune: population, explore, scheduler, trials, records, plots."""
