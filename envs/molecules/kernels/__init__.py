"""Compiled forces."""
