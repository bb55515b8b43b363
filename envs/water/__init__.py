"""Water molecules: inference and dynamics."""
