"""Cases of the benchmark beside other software."""
