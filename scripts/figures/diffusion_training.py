"""Train the diffusion model of digits and its classifier, and write their weights.

    python -m invariantzoo.figures.diffusion_training [--out training/geometry/data]

A fifth of the digits is held back, drawn at random. Weights are written in half precision.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.report import figure_parser

SEED, STEPS, CLASSIFIER_STEPS = 0, 8000, 2000
TRAINED = 1500  # of 1,797


def main() -> None:
    """Train, write digits-model.npz, print what it cost and how the classifier does."""
    import torch

    from invariantzoo.envs.core.files import write_atomically
    from invariantzoo.training.geometry import diffusion_training as training

    args = figure_parser(__doc__, out=Path("training/geometry/data")).parse_args()
    torch.set_num_threads(1)
    images, labels, held, held_labels = split()
    start = time.process_time()
    classifier = training.fit_classifier(images, labels, steps=CLASSIFIER_STEPS, seed=SEED)
    with torch.no_grad():
        right = (classifier(held).argmax(-1) == held_labels).double().mean()
    print(f"classifier: {right:.4f} of {len(held)} right, {time.process_time() - start:.1f} CPU s")
    start = time.process_time()
    net = training.fit_velocities(images, steps=STEPS, seed=SEED)
    print(f"diffusion: {STEPS} steps, {time.process_time() - start:.1f} CPU s")
    arrays: dict[str, Any] = {"scale": training.feature_scale(classifier, images).numpy()}
    for prefix, module in (("net.", net), ("classifier.", classifier)):
        state = module.state_dict()
        arrays |= {prefix + key: value.half().numpy() for key, value in state.items()}
    write_atomically(args.out / "digits-model.npz", lambda path: _save(path, arrays))


def split() -> Any:
    """Images and labels to train on, then those held back, as float32 and int64 tensors."""
    import torch

    from invariantzoo.training.geometry.diffusion import read_digits

    images, labels = read_digits()
    order = np.random.default_rng(SEED).permutation(len(images))
    x, y = torch.from_numpy(images[order]).float(), torch.from_numpy(labels[order])
    return x[:TRAINED], y[:TRAINED], x[TRAINED:], y[TRAINED:]


def _save(path: Path, arrays: dict[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    main()
