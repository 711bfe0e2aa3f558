"""What `ganrun bench` measures of this machine, each with what a user would pick instead beside it."""
