"""What `import ganrun` offers to programs and notebooks: runs, and batches for a loop of one's own."""
