"""Geometry: regimes of a learner's metric; Fisher metrics of samples and their shortest paths."""
