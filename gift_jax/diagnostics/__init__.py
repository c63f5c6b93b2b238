"""Diagnostics of logits besides accuracy: pure functions of arrays."""
