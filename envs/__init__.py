"""The catalogue: one file is one system."""
