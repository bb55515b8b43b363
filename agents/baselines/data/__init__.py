"""Weights of drivers that ship with the package."""
