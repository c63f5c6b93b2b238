"""From a config to finished students: stages, their products and results."""
