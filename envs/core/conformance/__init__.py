"""Checks that any PettingZoo environment, and any system of ours, must pass."""
