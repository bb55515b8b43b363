"""Neural networks that are made for the invariants of a system."""
