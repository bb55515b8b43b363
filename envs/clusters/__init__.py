"""Lennard-Jones clusters."""
