"""Molecules: data and their formats, what simulations measure and write."""
