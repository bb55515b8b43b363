"""Models that ship, as .npz files; `envs/molecules/files.py` reads them."""
