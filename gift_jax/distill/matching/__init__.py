"""Images that affect networks in training as the real ones do."""
