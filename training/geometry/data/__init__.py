"""Digits that ship, and the weights that were trained on them."""
