"""Packs what students are trained on into a folder, for a machine with nothing else."""
