"""Losses of invariants fitted to forces: potentials, files, simulation, a system."""
