"""What logits say besides their accuracy: pure functions of arrays."""
