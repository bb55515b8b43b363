"""Compiled twins of what learners do often."""
