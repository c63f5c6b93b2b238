"""Decoupled recovery: images that a trained teacher recognises as real."""
