"""Neurons that learn from one sample a step and choose how far each step goes."""
