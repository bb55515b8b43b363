"""What every system gets for nothing. Importing this package imports nothing else."""
