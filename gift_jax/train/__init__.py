"""Training: the state, the data-parallel step, the epochs, the checkpoints."""
