"""Actor-critic agents find the heat bath: their chances to flip beside the exact ones.

    python -m invariantzoo.figures.heat_bath [--root .]

Trains A2C with the temperature as entropy coefficient and no discount on single spins' losses, and
judges it on the 4 x 4 torus by the stationary law of its own sequential chain of 65,536 states,
found by power iteration. Writes docs/heat-bath.md and docs/results/heat-bath.json.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import invariantzoo
from invariantzoo.report import figure_parser, recorded, table, write_text

TEMPERATURES, SEEDS, STEPS = (2.0, 2.269, 2.5, 3.0), (0, 1), 3_000_000
ALIGNMENTS = np.array([-4, -2, 0, 2, 4])
SETTINGS = {"gamma": 0.0, "gae_lambda": 0.0, "lr": 5e-3, "max_grad_norm": 10.0}
TEXT = """# Spins learn the heat bath to within 0.005 in every chance

A spin whose action is worth minus its loss, plus T times the entropy of its choice, is best off
flipping with the heat bath's chance 1 / (1 + exp(2 a / T)), a its alignment with its neighbours.
A2C with entropy coefficient T and discount 0 finds it: {steps:,} agent-steps of 4 x 4 spins that
all act at once, in episodes of 8 sweeps from random spins, {seeds} seeds per temperature.

The fourth column is the largest of the five errors of the chances. The law is that of the learned
policy's own chain of single flips drawn at random, of all its 65,536 states: no samples. KL is that
of this law from Gibbs's. The last column is what the errors of the chances predict for the energy
per spin to first order, by the response of the exact chain to each chance.

{table}
Made by `python -m invariantzoo.figures.heat_bath`.
"""


def main() -> None:
    """Train, judge, write."""
    import torch

    root = figure_parser(__doc__, root=Path(".")).parse_args().root
    torch.set_num_threads(1)
    path, rows = root / "docs/results/heat-bath.json", []
    for temperature in TEMPERATURES:
        slope = recorded(path, f"response {temperature}", partial(response, temperature))
        for seed in SEEDS:
            key = f"chances {temperature} {seed}"
            flip_chances = recorded(path, key, partial(learned, temperature, seed))
            judged = recorded(path, f"law {key}", partial(judge, flip_chances, temperature))
            error = np.array(flip_chances) - exact(temperature)
            row = [temperature, seed, " ".join(f"{chance:.4f}" for chance in flip_chances)]
            row += [float(np.abs(error).max()), judged["kl"], judged["energy_error"]]
            rows.append([*row, float(error @ np.array(slope))])
            print(rows[-1], flush=True)
    head = ["T", "seed", "chance at -4, -2, 0, 2, 4", "largest error", "KL", "energy error"]
    text = TEXT.format(steps=STEPS, seeds=len(SEEDS), table=table([*head, "predicted"], rows))
    write_text(root / "docs/heat-bath.md", text)


def exact(temperature: float) -> np.ndarray:
    """Chances of the heat bath to flip, by alignment [5]."""
    return 1 / (1 + np.exp(2 * ALIGNMENTS / temperature))


def learned(temperature: float, seed: int) -> list[float]:
    """The same of a trained policy."""
    import torch

    from invariantzoo.training.rl.policies import NetworkPolicy
    from invariantzoo.training.rl.sb3 import A2CConfig, Trainer

    system = invariantzoo.make_system(
        "ising-equilibrium-v0", update="parallel", temperature=temperature, n_sweeps=8, burn_in=0
    )
    settings: dict[str, Any] = {**SETTINGS, "ent_coef": temperature, "reward_scale": 1.0}
    trainer = Trainer(system, A2CConfig(**settings), seed=seed, steps=STEPS)
    for _ in trainer:
        pass
    observation = torch.tensor([[float(a), 0.0, 1 / temperature] for a in ALIGNMENTS])
    network = trainer.model.policy
    assert isinstance(network, NetworkPolicy)
    with torch.no_grad():
        logits = network.heads(observation)[0]
    chances: list[float] = logits.double().softmax(-1)[:, 1].tolist()
    return chances


def judge(chances: list[float], temperature: float) -> dict[str, float]:
    """KL of the chain's own law from Gibbs's, and the error of the energy per spin."""
    import torch

    system = invariantzoo.make_system("ising-equilibrium-v0", temperature=temperature)
    flip = torch.tensor(chances, dtype=torch.float64)

    def probabilities(observation: torch.Tensor) -> torch.Tensor:
        chance = flip[((observation[..., 0] + 4) / 2).long()]
        return torch.stack([1 - chance, chance], -1)

    stationary = system.exact_evaluation(probabilities)
    return {
        "kl": stationary["kl"],
        "energy_error": stationary["energy"] - system.references()["energy"],
    }


def response(temperature: float) -> list[float]:
    """Change of the energy per spin per change of each chance [5], around the heat bath."""
    slopes = []
    for k in range(len(ALIGNMENTS)):
        sides = []
        for way in (-1, 1):
            chances = exact(temperature)
            chances[k] += way * 1e-3
            sides.append(judge(chances.tolist(), temperature)["energy_error"])
        slopes.append((sides[1] - sides[0]) / 2e-3)
    return slopes


if __name__ == "__main__":
    main()
