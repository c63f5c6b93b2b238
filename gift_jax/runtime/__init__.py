"""Several hosts, signals, files and devices: what surrounds the arithmetic."""
