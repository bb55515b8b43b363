"""The contract: what a system says of itself, and nothing about the interfaces it is seen through.

A system is a frozen dataclass of numbers with pure functions of a batched state:

    state -> invariants -> (policy) -> action -> transition -> loss,        reward = -loss

State is a NamedTuple of arrays [worlds, ...]. Arrays with an agent axis are [worlds, agents, ...].
Everything that may differ between worlds (temperature, size of the box) is state too. `example`
code that follows this contract stands in docs/write-your-own-system.md and is a test.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from gymnasium import spaces
from torch import Tensor

from . import renamed
from .kernel import Kernel
from .rng import Rng
from .scene import Scene
from .types import Bound, LiveParameter, Neighbourhood, State, StatePolicy, Symmetry
from .validation import shown

# what a compiled step computes, and what a fused run does as well
_OF_STEPS = ("transition", "invariants", "loss", "metrics", "bounds", "action_space")
_LAWS = (*_OF_STEPS, "active", "terminated", "action_mask")
_LAWS_OF_RUNS = (*_LAWS, "policies", "state_policies")


class System(ABC):
    """What every system offers. Optional parts have a default that says "none".

    Observations are the invariants in the order of `bounds`, clipped to them, as flat float32.
    The loss counts the other agents' places after the step unless a system says otherwise.
    """

    agent_name: ClassVar[str] = "agent"
    stochastic: ClassVar[bool] = False  # whether policies are evaluated by sampling their actions
    differentiable: ClassVar[bool] = True  # False: events are drawn, no gradient of the loss flows
    networks: ClassVar[tuple[str, ...]] = ()  # of agents/networks that are made for its family
    baseline_family: ClassVar[str] = "acceleration"  # whose policies the names in `baselines` mean
    press: ClassVar[str] = ""  # what `pressed` does, in the words of the window's list of keys

    # Read-only: a system has each as a field, a class attribute or a property.
    if TYPE_CHECKING:

        @property
        def n_agents(self) -> int:
            """Agents of a world."""

        @property
        def horizon(self) -> int:
            """Steps after which an episode is truncated."""

        @property
        def warm_up(self) -> int:
            """Steps at the start of an episode that the metrics leave out."""

        @property
        def sweep(self) -> int:
            """Steps in which every agent acts once, on average."""

        @property
        def reductions(self) -> dict[str, str]:
            """Metric -> "mean", "sum", "max" or "last"."""

        @property
        def one_at_a_time(self) -> bool:
            """Whether `active` restricts who acts."""

        @property
        def fused(self) -> tuple[str, ...]:
            """Own policies that `rollout` knows."""

        @property
        def live_parameters(self) -> dict[str, LiveParameter]:
            """Fields [worlds, 1] of the state that the window may adjust, with their limits."""

    else:
        warm_up, sweep, one_at_a_time = 0, 1, False
        reductions, fused, live_parameters = {}, (), {}

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        renamed.adopt_former_members(cls)
        cls._leave_what_is_compiled_for_other_laws()

    @classmethod
    def _leave_what_is_compiled_for_other_laws(cls) -> None:
        """Inherit no compiled form that knows nothing of what this class does otherwise."""
        for name, owner, laws in (("kernel", "kernel", _LAWS), ("fused", "rollout", _LAWS_OF_RUNS)):
            if name not in vars(cls) and cls._differs_from_where(owner, laws):
                setattr(cls, name, vars(System)[name])

    @classmethod
    def _differs_from_where(cls, compiled: str, laws: tuple[str, ...]) -> bool:
        """Whether one of the laws is another one than in the class that defines `compiled`."""
        owner = next(base for base in cls.__mro__ if compiled in vars(base))
        if owner is System or not issubclass(owner, System):  # a mixin's form is of who mixes it in
            return False
        return any(getattr(cls, law) is not getattr(owner, law) for law in laws)

    @property
    @abstractmethod
    def bounds(self) -> dict[str, Bound]:
        """Invariants by name with their finite limits."""

    @property
    @abstractmethod
    def action_space(self) -> spaces.Box | spaces.Discrete:
        """One agent's action: Box(-1, 1, (size,)) or Discrete(n)."""

    @property
    def agent_types(self) -> tuple[int, ...]:
        """The type of every agent, from 0 on: policies may be shared within a type."""
        return (0,) * self.n_agents

    @property
    def neighbourhood(self) -> Neighbourhood | None:
        """What networks that share weights among neighbours need; None: there are none."""
        return None

    @property
    def baselines(self) -> tuple[str, ...]:
        """Hand-written policies of `agents/baselines` that suit it, by name."""
        return ()

    @abstractmethod
    def initial(self, rng: Rng, worlds: int) -> State:
        """A state of `worlds` worlds."""

    @abstractmethod
    def transition(self, state: State, action: Tensor, rng: Rng) -> State:
        """The next state; `action` is [worlds, agents, size] float64 or [worlds, agents] int64."""

    @abstractmethod
    def invariants(self, state: State) -> dict[str, Tensor]:
        """What an agent sees: name -> [worlds, agents] or [worlds, agents, size]."""

    @abstractmethod
    def loss(self, state: State, action: Tensor, next_state: State) -> Tensor:
        """[worlds, agents]."""

    def metrics(self, state: State, action: Tensor, next_state: State) -> dict[str, Tensor]:
        """Scores that are not the loss, one number per world: the names of `reductions`."""
        return {}

    def active(self, state: State) -> Tensor | None:
        """Flags [worlds, agents] of who acts in the next transition; None: all do."""
        return None

    def terminated(self, state: State) -> Tensor | None:
        """Flags [worlds, agents] of who has left for good; None: nobody leaves."""
        return None

    def action_mask(self, state: State) -> Tensor | None:
        """Flags [worlds, agents, n] of legal discrete actions; an illegal one does nothing."""
        return None

    def symmetries(self, state: State, rng: Rng) -> Iterator[Symmetry]:
        """The world as other observers see it."""
        return iter(())

    def scene(self, state: State) -> Scene | None:
        """A picture of the first world of `state`."""
        return None

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        """The system's own exact policies: (invariants by name, generator) -> action."""
        return {}

    def state_policies(self) -> dict[str, StatePolicy]:
        """Own policies that act on the state and may remember, by names `policies` has not.

        `transition` must take their actions beyond the limits of the action space as they are.
        """
        return {}

    def exact_evaluation(self, probabilities: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """What is known exactly of a policy of discrete actions; {} where nothing is.

        probabilities: from observations [..., size] to the chances of the actions [..., n].
        """
        return {}

    def judge(self, probabilities: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The former name of `exact_evaluation`."""
        renamed.warn("System.judge", "System.exact_evaluation")
        if type(self).judge is not System.judge:  # asked by a system that defines it itself
            return {}
        return self.exact_evaluation(probabilities)

    def gone(self, state: State) -> Tensor | None:
        """The former name of `terminated`."""
        renamed.warn("System.gone", "System.terminated")
        if type(self).gone is not System.gone:  # asked by a system that defines it itself
            return None
        return self.terminated(state)

    @property
    def knobs(self) -> dict[str, LiveParameter]:
        """The former name of `live_parameters`."""
        renamed.warn("System.knobs", "System.live_parameters")
        return self.live_parameters

    def pressed(self, state: State, agent: int) -> State | None:
        """The state after somebody has pressed an agent of the first world in the window.

        None where that does nothing but follow the agent.
        """
        return None

    def references(self) -> dict[str, float]:
        """Exact values of metrics under an exact policy, by name."""
        return {}

    def world_bytes(self) -> int:
        """What one world's state and a step of it need at least, beside what its agents see."""
        return 8 * self.n_agents

    def require_state(self, state: State) -> None:  # noqa: B027  # it need not refuse any
        """Raise ValueError for values that a state of a run never has, where code relies on that.

        Called with what a reset is given, where fields that are not given are those of any world,
        and with what is restored.
        """

    def require_given(self, state: State) -> None:  # noqa: B027  # it need not refuse any
        """The same for values that a reset may not be given though a run can have them.

        What lies beyond the bounds of what agents see: a curriculum leaves worlds with such.
        """

    def adjusted(self, state: State) -> State:
        """The state after a live parameter of it was changed: what is counted from there on."""
        return state

    def settled(self, state: State) -> State:
        """A given state in the form that steps leave: with places brought into the box."""
        return state

    def rollout(
        self, state: State, policy: str, steps: int, rng: Rng, every: int
    ) -> tuple[State, dict[str, Tensor]]:
        """`steps` steps under one of `fused` without Python between them, and its records.

        Obeys the law of `transition` under that policy with other random numbers. Records are
        "loss" (mean over agents) and the metrics, name -> [steps // every, worlds]: each stands for
        `every` steps, as their mean where a system counts events, else as the last of them.
        """
        raise NotImplementedError

    def kernel(self, worlds: int) -> Kernel | None:
        """A compiled twin for `worlds` worlds, or None."""
        return None


def require_system(system: object) -> None:
    """Raise ValueError for the name of an id in place of its system."""
    if isinstance(system, str):
        raise ValueError(f"system={shown(system)} is a name; make_system(name) makes the system")


def __getattr__(name: str) -> Any:
    return renamed.system_name(name)
