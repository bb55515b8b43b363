"""Models that ship, as .npz files; `agents/model_file.py` reads them."""
