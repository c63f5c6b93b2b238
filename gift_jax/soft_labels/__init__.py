"""Soft labels of every view: where they come from, how they are stored and replayed."""
