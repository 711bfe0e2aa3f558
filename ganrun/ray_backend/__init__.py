"""Ray backend: cluster, launch and rendezvous of workers, scaling policies, evaluation tasks."""
