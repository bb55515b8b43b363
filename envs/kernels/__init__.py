"""Fast twins of the systems, compiled by numba: plain arrays in, plain arrays out."""
