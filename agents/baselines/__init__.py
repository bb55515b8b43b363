"""Policies written by hand that several systems share."""
