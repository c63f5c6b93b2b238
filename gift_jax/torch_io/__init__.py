"""PyTorch files: read without PyTorch, and their weights in Flax networks."""
