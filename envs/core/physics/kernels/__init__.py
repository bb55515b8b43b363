"""Compiled code that several systems share."""
