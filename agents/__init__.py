"""Who acts: policies and networks over invariants, and classical baselines."""
