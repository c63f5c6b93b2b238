"""What students are trained on in one folder, for a machine with nothing else."""
