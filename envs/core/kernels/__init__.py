"""What all compiled functions share: named arrays, reductions, random numbers, their cache."""
