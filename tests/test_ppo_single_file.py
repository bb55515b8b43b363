"""PPO in one file: short, quick to learn, and blind to nothing that a mask says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from invariantzoo import ppo_single_file
from invariantzoo.ppo_single_file import Agent, Settings, train


def test_it_is_short_and_stands_alone() -> None:
    text = Path(ppo_single_file.__file__).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    lines = [line.split() for line in text.splitlines() if line.startswith(("import ", "from "))]
    imported = {words[1].partition(".")[0] for words in lines}
    ours = {"gymnasium", "numpy", "torch", "invariantzoo"}
    assert imported - ours <= sys.stdlib_module_names


def test_it_learns() -> None:
    """Discs that meet lose a third of what they lost at first, and draw no global number."""
    before = torch.get_rng_state()
    rows: list[dict[str, float]] = []
    train("particles-encounter-v0", Settings(steps=80_000), rows.append)
    assert torch.equal(torch.get_rng_state(), before)
    assert rows[-1]["steps"] == 81_920
    returns = [row["return"] for row in rows if not np.isnan(row["return"])]
    assert returns[-1] > 0.45 * returns[0]  # both below 0
    again: list[dict[str, float]] = []
    train("particles-encounter-v0", Settings(steps=8_000), again.append)
    other: list[dict[str, float]] = []
    train("particles-encounter-v0", Settings(steps=8_000), other.append)
    assert again[-1]["return"] == other[-1]["return"]


def test_masks_are_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Walkers that may not overtake all leave, and none ever tries what is illegal."""
    chosen: list[bool] = []
    draw = ppo_single_file.draw

    def watched(policy: torch.distributions.Categorical, rng: torch.Generator) -> torch.Tensor:
        action = draw(policy, rng)
        legal = policy.logits.exp() > 0
        chosen.append(bool(legal.gather(-1, action.unsqueeze(-1)).all()) and not bool(legal.all()))
        return action

    monkeypatch.setattr(ppo_single_file, "draw", watched)
    agent, rows = train("test-leave-v0", Settings(steps=8_000, worlds=16, batch=512), len)
    assert chosen
    assert all(chosen)
    assert isinstance(agent, Agent)
    assert rows[-1]["steps"] == 8_192


def test_a_last_batch_of_one_row_does_no_harm() -> None:
    agent, _ = train("test-hold-v0", Settings(steps=5, worlds=1, rollout=5, batch=4), len)
    assert all(bool(weight.isfinite().all()) for weight in agent.parameters())
