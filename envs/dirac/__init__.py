"""Dirac fields on a lattice: a quantum walk on links that carry a gauge field, and its control."""
