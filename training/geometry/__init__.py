"""Geometry of learning: regimes of a metric."""
