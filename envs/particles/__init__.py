"""Discs that drive: the crowd and the encounter."""
