"""One checked, immutable description for each section of a config."""
