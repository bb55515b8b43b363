"""Reinforcement learning: what the learners of the parent package share."""
