"""Optimizers: covariant gradient descent and what it needs."""
