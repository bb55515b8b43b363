"""Hyper-parameters of every way to train: a field is one, its metadata its help.

Neither torch nor Stable-Baselines3 is imported here, so that `train --help` stays quick.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from ...agents.networks import SHARES
from ...envs.core.validation import require_choice, require_count, require_number
from ..optim.config import OptimizerConfig, hyper

_DEVICE = 'where torch computes: "cpu", "cuda", "cuda:1", …'
_SHARE = 'one policy for "all" agents, for each "type" of agent, or for each agent: "none"'


def _default(base: type[OptimizerConfig], name: str, default: Any) -> Any:
    """A field of a base with another default; its help stays."""
    return hyper(default, base.__dataclass_fields__[name].metadata["help"])


@dataclass(frozen=True)
class SB3Config(OptimizerConfig):
    """Hyper-parameters that all algorithms of Stable-Baselines3 share."""

    n_worlds: int = hyper(64, "worlds stepped together")
    n_steps: int = hyper(32, "steps of every world per update")
    lr: float = hyper(1e-3, "learning rate at the start; it falls to zero linearly")
    gamma: float = hyper(0.95, "discount per step")
    reward_scale: float = hyper(0.1, "rewards are multiplied by it before they are learned from")
    log_std_init: float = hyper(-1.5, "log of the actions' standard deviation at the start")
    network: str = hyper("", '"pair", "set" or "mlp"; empty: the best suited')
    width: int = hyper(32, "hidden units per layer of the network")
    critic_width: int = hyper(64, "the same of the value's network")
    device: str = hyper("cpu", _DEVICE)
    checkpoint_every: int = hyper(20, "updates between checkpoints")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_worlds", "n_steps", "width", "critic_width", "checkpoint_every"):
            require_count(name, getattr(self, name))
        for name in ("lr", "reward_scale"):
            require_number(name, getattr(self, name), 0, strict=True)
        require_number("gamma", self.gamma, 0, 1)
        require_number("log_std_init", self.log_std_init, -10, 2)

    @property
    def steps_per_update(self) -> int:
        """Steps of every world per update, as they are made."""
        return self.n_steps

    def smallest(self, n_agents: int) -> Self:
        """The same for one world, of which nothing is learned: what holds a policy needs no more.

        n_agents: of the system.
        """
        return dataclasses.replace(self, n_worlds=1)


@dataclass(frozen=True)
class OnPolicyConfig(SB3Config):
    """Hyper-parameters of algorithms that learn from the latest steps alone: PPO and A2C."""

    gae_lambda: float = hyper(0.95, "mixing of advantage estimates")
    ent_coef: float = hyper(0.0, "weight of the entropy bonus")
    vf_coef: float = hyper(0.5, "weight of the value's loss")
    max_grad_norm: float = hyper(0.5, "the gradient is shortened to this length")
    share: str = hyper("all", _SHARE)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("share", self.share, SHARES)
        require_number("gae_lambda", self.gae_lambda, 0, 1)
        for name in ("ent_coef", "vf_coef"):
            require_number(name, getattr(self, name), 0)
        require_number("max_grad_norm", self.max_grad_norm, 0, strict=True)

    def smallest(self, n_agents: int) -> Self:
        """The same for one world and two steps, as few as leave advantages a spread."""
        return dataclasses.replace(self, n_worlds=1, n_steps=2)


@dataclass(frozen=True)
class PPOConfig(OnPolicyConfig):
    """Hyper-parameters of proximal policy optimization (Schulman et al. 2017)."""

    batch_size: int = hyper(4096, "rows per gradient step")
    n_epochs: int = hyper(4, "passes over the rows of an update")
    clip_range: float = hyper(0.2, "how far the ratio of probabilities may move")
    normalize_advantage: bool = hyper(True, "per batch; False: ent_coef stays a temperature")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("n_epochs", self.n_epochs)
        require_count("batch_size", self.batch_size, 2)
        require_number("clip_range", self.clip_range, 0, strict=True)


@dataclass(frozen=True)
class MAPPOConfig(PPOConfig):
    """Hyper-parameters of PPO whose critic sees all agents (Yu et al. 2022), as a set."""


@dataclass(frozen=True)
class MaskablePPOConfig(PPOConfig):
    """Hyper-parameters of PPO that chooses among legal actions alone (needs sb3-contrib)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.share != "all":
            raise ValueError(f"share={self.share!r} must be 'all' for maskable_ppo")


@dataclass(frozen=True)
class A2CConfig(OnPolicyConfig):
    """Hyper-parameters of advantage actor-critic (Mnih et al. 2016), without parallel workers."""

    default_optimizer: ClassVar[str] = "rmsprop"  # SB3's

    n_steps: int = _default(SB3Config, "n_steps", 8)
    lr: float = _default(SB3Config, "lr", 2e-3)
    checkpoint_every: int = _default(SB3Config, "checkpoint_every", 100)
    normalize_advantage: bool = _default(PPOConfig, "normalize_advantage", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalize_advantage and self.n_worlds * self.n_steps < 2:
            raise ValueError(
                f"normalize_advantage=True needs n_worlds={self.n_worlds} times "
                f"n_steps={self.n_steps} to be at least 2: one advantage has no spread"
            )


@dataclass(frozen=True)
class SACConfig(SB3Config):
    """Hyper-parameters of soft actor-critic (Haarnoja et al. 2018); continuous actions only."""

    n_worlds: int = _default(SB3Config, "n_worlds", 16)
    n_steps: int = hyper(32, "steps of every world per update (a row of progress.csv)")
    reward_scale: float = _default(SB3Config, "reward_scale", 1.0)
    critic_width: int = hyper(64, "the same of the critics")
    train_freq: int = hyper(4, "steps of every world between rounds of gradient steps")
    gradient_steps: int = hyper(4, "gradient steps per round")
    batch_size: int = hyper(1024, "rows per gradient step")
    buffer_size: int = hyper(200_000, "rows of the replay buffer")
    learning_starts: int = hyper(10_000, "agent-steps with random actions before learning")
    tau: float = hyper(0.02, "how fast the target networks follow")
    target_entropy: float = hyper(-1.0, "wanted entropy of the policy, per component of the action")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train_freq", "gradient_steps", "batch_size", "buffer_size"):
            require_count(name, getattr(self, name))
        require_count("learning_starts", self.learning_starts, 0)
        require_number("tau", self.tau, 0, 1, strict=True)
        require_number("target_entropy", self.target_entropy)

    @property
    def steps_per_update(self) -> int:
        """Steps of every world per update: whole rounds."""
        return -(-self.n_steps // self.train_freq) * self.train_freq

    def smallest(self, n_agents: int) -> Self:
        """The same for one world, with a replay buffer of a row for each of its agents."""
        return dataclasses.replace(self, n_worlds=1, buffer_size=n_agents)


@dataclass(frozen=True)
class DescentConfig(OptimizerConfig):
    """Hyper-parameters of descent through the dynamics."""

    n_worlds: int = hyper(16, "worlds rolled out per update")
    rollout: int = hyper(40, "steps that the gradient flows through, past an episode's end too")
    lr: float = hyper(5e-3, "learning rate at the start; it falls to zero as a cosine")
    max_grad_norm: float = hyper(1.0, "the gradient is shortened to this length")
    network: str = hyper("", '"pair", "set" or "mlp"; empty: the best suited')
    width: int = hyper(24, "hidden units per layer")
    float64: bool = hyper(False, "double precision")
    device: str = hyper("cpu", _DEVICE)
    checkpoint_every: int = hyper(20, "updates between checkpoints")

    share: str = hyper("all", _SHARE)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("share", self.share, SHARES)
        for name in ("n_worlds", "rollout", "width", "checkpoint_every"):
            require_count(name, getattr(self, name))
        for name in ("lr", "max_grad_norm"):
            require_number(name, getattr(self, name), 0, strict=True)


@dataclass(frozen=True)
class ESConfig(OptimizerConfig):
    """Hyper-parameters of the evolution strategy (Salimans et al. 2017), for any actions."""

    pairs: int = hyper(20, "antithetic pairs of candidates per update")
    n_worlds: int = hyper(4, "worlds per update; every candidate plays all of them")
    std: float = hyper(0.05, "standard deviation of the noise on the weights at the start")
    std_final: float = hyper(0.02, "the same at the end; it moves there geometrically")
    lr: float = hyper(0.03, "learning rate at the start; it falls to zero as a cosine")
    rollout: int = hyper(0, "first steps of episodes that are played; 0: whole episodes")
    network: str = hyper("", '"pair", "set" or "mlp"; empty: the best suited')
    width: int = hyper(12, "hidden units per layer")
    device: str = hyper("cpu", _DEVICE)
    checkpoint_every: int = hyper(20, "updates between checkpoints")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("pairs", "n_worlds", "width", "checkpoint_every"):
            require_count(name, getattr(self, name))
        require_count("rollout", self.rollout, 0)
        for name in ("std", "std_final", "lr"):
            require_number(name, getattr(self, name), 0, strict=True)


CONFIGS: dict[str, type[OptimizerConfig]] = {
    "ppo": PPOConfig,
    "mappo": MAPPOConfig,
    "a2c": A2CConfig,
    "sac": SACConfig,
    "descent": DescentConfig,
    "es": ESConfig,
    "maskable_ppo": MaskablePPOConfig,
}
EXTRAS = {"maskable_ppo": "sb3-contrib"}  # what some of them need beside our own dependencies
