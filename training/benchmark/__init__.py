"""Benchmarks: units of work that are run folders, who runs them, and what their scores say."""
