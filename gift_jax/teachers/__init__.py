"""Teachers: whatever gives logits for images."""
