"""One worker of a run, from config to end, without Ray."""
