"""Images that do to networks in training what the real ones do."""
