"""Neural networks that are made for the invariants of a system."""

SHARES = ("all", "type", "none")  # who has the same weights: see `networks/agents.py`
