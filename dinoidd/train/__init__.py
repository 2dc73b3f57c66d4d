"""Training on Ray: the cache is made with Ray Data, and Ray Train runs the workers."""
