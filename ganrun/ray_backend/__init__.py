"""Ray: the cluster, the workers' launch and rendezvous, scaling policies, evaluation tasks."""
