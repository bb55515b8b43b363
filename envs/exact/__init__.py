"""Exact results, one file per system of the same name: what simulations are held against."""
