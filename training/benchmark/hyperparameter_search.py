"""Hyper-parameters by search: trainings of one id that Optuna chooses, and gives up early.

A search is a folder. search.json says what is searched, journal.log is Optuna's record of all
trials, and trial-0007/run-0 is the run folder of a training, with its seed. Any number of processes
may work in the folder at once, on this machine or on others that see it, and each may be stopped or
killed at any time: whoever comes next goes on with its trial from the last checkpoint.

Trials are trained and scored on seeds of their own: neither those that benchmarks train with, which
begin at 0, nor those that published scores are of. The first trial is of the settings that the id
has now, so what is found can be compared with them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...envs.core.files import InUseError, claim
from ...envs.core.observation import is_discrete
from ...envs.core.registry import make_system
from ...envs.core.system import System
from ...envs.core.validation import require_choice, require_count
from ..rl.algorithms import make_config, make_trainer, suited
from ..rl.hyperparameters import ALGORITHMS
from ..rl.score import evaluate
from ..rl.trainer import Trainer, Update
from ..runs import run as runs

if TYPE_CHECKING:
    import optuna

FIRST_SEED = 10_000  # of trainings and of evaluations: far from those of benchmarks and scores
RUNGS = 4  # a training is scored so many times, and may be given up at all but the last
SEARCH, JOURNAL = "search.json", "journal.log"
SCHEMA = 1
_STUDY = "search"
_OTHERS = "others"  # in search.json: settings that are neither searched nor said
_RANDOM_TRIALS = 6  # before the sampler learns from what was seen
_DIGITS = 3  # significant ones, to which sampled numbers are rounded before they are used
_NOT_NEEDED = (runs.CHECKPOINT, runs.POLICY)  # of a training that has ended: they may be large

Value = int | float | bool | str


class Choice(NamedTuple):
    """One of some values."""

    values: tuple[Value, ...]

    def widened(self, value: Any) -> Choice:
        """The same with `value` among them."""
        return self if value in self.values else Choice((*self.values, value))

    def sample(self, trial: optuna.Trial, name: str) -> Any:
        """A value of a trial."""
        return trial.suggest_categorical(name, self.values)


class Between(NamedTuple):
    """A number between two, evenly or evenly in its logarithm."""

    low: float
    high: float
    log: bool = False

    def widened(self, value: Any) -> Between:
        """The same with `value` in it."""
        return Between(min(self.low, value), max(self.high, value), self.log)

    def sample(self, trial: optuna.Trial, name: str) -> Any:
        """A value of a trial, rounded to few digits."""
        return _rounded(trial.suggest_float(name, self.low, self.high, log=self.log))


Space = dict[str, Choice | Between]

_ON_POLICY: Space = {
    "lr": Between(1e-4, 1e-2, log=True),
    "gamma": Choice((0.8, 0.9, 0.95, 0.98, 0.99, 0.995)),
    "gae_lambda": Choice((0.8, 0.9, 0.95, 0.98)),
    "ent_coef": Choice((0.0, 1e-4, 1e-3, 1e-2)),
    "vf_coef": Choice((0.0, 0.5)),  # 0: no critic, for returns that hardly vary
    "reward_scale": Between(0.01, 1.0, log=True),
    "log_std_init": Between(-4.0, 0.0),
}
_PPO: Space = {
    **_ON_POLICY,
    "n_steps": Choice((8, 16, 32, 64, 128)),
    "batch_size": Choice((512, 1024, 2048, 4096, 8192)),
    "n_epochs": Choice((2, 4, 8, 12)),
}
SPACES: dict[str, Space] = {
    "ppo": _PPO,
    "mappo": _PPO,
    "maskable_ppo": _PPO,
    "a2c": {**_ON_POLICY, "n_steps": Choice((4, 8, 16, 32))},
    "sac": {
        "lr": Between(1e-4, 1e-2, log=True),
        "gamma": Choice((0.8, 0.9, 0.95, 0.98, 0.99, 0.995)),
        "reward_scale": Between(0.1, 10.0, log=True),
        "batch_size": Choice((256, 512, 1024, 2048)),
        "train_freq": Choice((2, 4, 8)),
        "gradient_steps": Choice((2, 4, 8)),
        "tau": Between(0.005, 0.05, log=True),
        "target_entropy": Between(-2.0, 0.0),
    },
    "descent": {
        "lr": Between(5e-4, 5e-2, log=True),
        "n_worlds": Choice((8, 16, 32)),
        "rollout": Choice((10, 20, 40, 80)),
        "max_grad_norm": Between(0.1, 10.0, log=True),
    },
    "es": {
        "lr": Between(3e-3, 0.1, log=True),
        "pairs": Choice((10, 20, 40)),
        "n_worlds": Choice((1, 2, 4, 8)),
        "std": Between(0.01, 0.2, log=True),
        "std_final": Between(0.005, 0.1, log=True),
    },
}


@dataclass(frozen=True)
class Search:
    """What is searched: the same for all who work on it.

    steps: agent-steps of a training.  seeds: trainings of a trial, whose value is their mean.
    episodes: of a training's score.  seed: of what is sampled.
    parameters: of the system.  fixed: hyper-parameters that are not searched.
    """

    id: str
    algo: str
    steps: int
    seeds: int = 1
    episodes: int = 20
    seed: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_choice("algo", self.algo, ALGORITHMS)
        for name in ("steps", "seeds", "episodes"):
            require_count(name, getattr(self, name))

    def system(self) -> System:
        """The system of its trainings."""
        return make_system(self.id, **self.parameters)

    def present(self) -> Any:
        """The settings that the id has now, with those that are fixed."""
        return make_config(self.id, self.algo, self.fixed)

    def space(self) -> Space:
        """What is sampled, by name; the present settings are in it."""
        present, discrete = self.present(), is_discrete(self.system())
        return {
            name: values.widened(getattr(present, name))
            for name, values in SPACES[self.algo].items()
            if name not in self.fixed and not (discrete and name == "log_std_init")
        }


class Trial(NamedTuple):
    """A trial: its state is "running", "complete", "pruned" or "failed", and then why.

    value: mean return of complete ones, else the last that was seen, if there was any.
    """

    number: int
    state: str
    value: float | None
    settings: dict[str, Any]
    reason: str = ""


def require_possible(search: Search) -> None:
    """Raise ValueError unless its algorithm can train its id, with the settings of now."""
    if not search.space():
        raise ValueError(f"all settings of {search.algo} that can be searched are fixed by --set")
    make_trainer(search.algo, search.system(), search.present(), seed=FIRST_SEED, steps=1)


def begin(folder: Path, search: Search) -> None:
    """Write search.json, or see that it is of this search; ValueError if it is of another.

    So is one whose trials had other settings where nothing is searched: they do not compare.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, space = folder / SEARCH, search.space()
    present = dataclasses.asdict(search.present())
    others = {name: present[name] for name in present if name not in space and name != "device"}
    wanted = {"schema": SCHEMA, **dataclasses.asdict(search), "space": space, _OTHERS: others}
    wanted = json.loads(json.dumps(wanted))  # tuples are lists there
    with _alone(folder):
        known = _read(path) if path.exists() else None
        _make_study(folder, search)  # what a full disk or a lost machine left is made whole
        if known is None:
            runs.write_json(path, wanted)
            known = wanted
    had = known.get(_OTHERS)
    had = had if isinstance(had, dict) else {}  # a version before did not write them
    then, now = {**wanted[_OTHERS], **known, **had}, {**wanted, **wanted[_OTHERS]}
    for name in sorted((then.keys() | now.keys()) - {_OTHERS}):
        if then.get(name) != now.get(name):
            raise ValueError(
                f"{folder} holds a search with {name}={then.get(name)!r}, not "
                f"{now.get(name)!r}; choose another --out"
            )


def _read(path: Path) -> dict[str, Any]:
    """search.json; ValueError for what is none."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(known, dict) or "schema" not in known:
        raise ValueError(f"{path} is of something else than a search; choose another --out")
    return known


def work(
    folder: Path,
    search: Search,
    trials: int,
    *,
    stopped: Callable[[], bool] = lambda: False,
    watch: Callable[[float], object] = lambda done: None,
) -> bool:
    """Make trials until there are `trials`, those of others counted; whether that was reached.

    `watch` hears the share of the trial at work, in trials that have ended before it. Once
    `stopped`, the trial at work is saved and left to whoever comes next.
    """
    while not stopped():
        with _next_trial(folder, search, trials) as trial:
            if trial is None:
                return True
            ended = sum(one.state != "running" for one in read_trials(folder))
            _try(trial, folder, search, stopped, partial(_heard, watch, ended))
    return False


def _heard(watch: Callable[[float], object], ended: int, share: float) -> None:
    watch(ended + share)


def read_trials(folder: Path) -> list[Trial]:
    """All trials that were begun, in order."""
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
    return [
        Trial(
            frozen.number,
            names[frozen.state.name],
            _value(frozen),
            frozen.user_attrs.get("settings", {}),
            frozen.user_attrs.get("reason", ""),
        )
        for frozen in _study(folder).get_trials(deepcopy=False)
        if frozen.state.name in names
    ]


def best_trial(trials: list[Trial]) -> Trial | None:
    """The complete trial with the largest value; None before the first."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)


def is_present(search: Search, settings: dict[str, Any]) -> bool:
    """Whether a trial's settings are those that the id has now."""
    present = search.present()
    return bool(settings) and all(getattr(present, name) == settings[name] for name in settings)


def registered(search: Search, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as an id has them under its algorithm in `training`: those that are no defaults."""
    plain = {f.name: f.default for f in dataclasses.fields(search.present())}
    chosen = {**suited(search.id, search.algo), **search.fixed, **settings}
    return {
        name: value for name, value in chosen.items() if name == "steps" or plain[name] != value
    }


# ------------------------------------------------------------------------------------ a trial


def _try(
    trial: optuna.Trial,
    folder: Path,
    search: Search,
    stopped: Callable[[], bool],
    watch: Callable[[float], object],
) -> None:
    """Train and score a trial, and tell Optuna; it stays as it is if it is stopped."""
    import optuna

    study = trial.study
    settings = {name: values.sample(trial, name) for name, values in search.space().items()}
    trial.set_user_attr("settings", settings)
    returns: list[float] = []
    state = optuna.trial.TrialState.COMPLETE
    try:
        hyper = make_config(search.id, search.algo, {**search.fixed, **settings})
        for number in range(search.seeds):
            value = _train(trial, folder, search, hyper, number, returns, stopped, watch)
            if value is None:
                return
            returns.append(value)
    except optuna.TrialPruned:
        state = optuna.trial.TrialState.PRUNED
    except (ArithmeticError, ValueError) as error:
        state = optuna.trial.TrialState.FAIL
        trial.set_user_attr("reason", " ".join(str(error).split()))
    whole = state is optuna.trial.TrialState.COMPLETE
    study.tell(trial, sum(returns) / len(returns) if whole else None, state=state)
    for path in _trial_folder(folder, trial.number).glob("run-*/*"):
        if path.name in _NOT_NEEDED:
            path.unlink()


def _train(
    trial: optuna.Trial,
    folder: Path,
    search: Search,
    hyper: Any,
    number: int,
    returns: list[float],
    stopped: Callable[[], bool],
    watch: Callable[[float], object],
) -> float | None:
    """The return of one training of a trial; None if it was stopped.

    returns: of the trainings before it.  Raises TrialPruned where the trial is given up.
    """
    import optuna

    system, seed = search.system(), FIRST_SEED + number
    trainer = make_trainer(search.algo, system, hyper, seed=seed, steps=search.steps)
    run = _trial_folder(folder, trial.number) / f"run-{number}"
    config = runs.describe(search.id, search.algo, system, hyper, steps=search.steps, seed=seed)
    if _other_than(run, config):  # of a trial of this number whose record was lost
        (run / runs.CHECKPOINT).unlink(missing_ok=True)
    runs.write_config(run, config)
    if (run / runs.CHECKPOINT).exists():
        runs.restore(run, trainer)
    updates = -(-search.steps // trainer.per_update)
    rungs = {-(-rung * updates // RUNGS): rung for rung in range(1, RUNGS)}
    told = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values

    def see(update: Update) -> bool:
        done = update.steps // trainer.per_update
        watch((number + min(done / updates, 1)) / search.seeds)
        rung = rungs.get(done)
        step = number * RUNGS + (rung or 0)
        if rung is not None and done < updates and step not in told:
            value = _score(search, system, trainer, max(1, search.episodes // RUNGS))
            trial.report((sum(returns) + value) / (len(returns) + 1), step)
        if rung is not None and trial.should_prune():
            raise optuna.TrialPruned
        return not stopped()

    with runs.recording(run, since=trainer.steps) as recorder:
        every = hyper.checkpoint_every
        if not runs.train(trainer, recorder, checkpoint_every=every, watch=see):
            if trainer.steps < search.steps:
                return None
    return _score(search, system, trainer, search.episodes)


def _other_than(run: Path, config: dict[str, Any]) -> bool:
    """Whether a folder holds a training with other settings than those of `config`."""
    try:
        return runs.read_config(run) != json.loads(json.dumps(config))
    except (OSError, ValueError):
        return True


def _score(search: Search, system: System, trainer: Trainer, episodes: int) -> float:
    """Mean return of a policy as it is; ValueError if it is not finite."""
    scores = evaluate(
        system,
        trainer.policy(),
        episodes=episodes,
        seeds=1,
        deterministic=not system.stochastic,
        first_seed=FIRST_SEED,
    )
    value = float(scores["return"].mean())
    if not math.isfinite(value):
        raise ValueError(f"the return is {value}: training has diverged")
    return value


# ----------------------------------------------------------------------------------- the journal


def _storage(folder: Path) -> optuna.storages.JournalStorage:
    import optuna

    from .journal import Journal

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal = Journal(folder / JOURNAL)
    try:
        return optuna.storages.JournalStorage(journal)
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as e:
        what = " ".join(str(e).split()) or type(e).__name__
        raise ValueError(f"{folder / JOURNAL} is damaged ({what}); choose another --out") from None


def _make_study(folder: Path, search: Search) -> None:
    """A journal with the first trial that is to be, unless it has trials already.

    Raises ValueError where another program's file has its name.
    """
    import optuna

    study = optuna.create_study(
        study_name=_STUDY, storage=_storage(folder), direction="maximize", load_if_exists=True
    )
    if not study.get_trials(deepcopy=False):
        present = search.present()
        study.enqueue_trial({name: getattr(present, name) for name in search.space()})


def _study(folder: Path) -> optuna.Study:
    """The study of a folder, as it is now."""
    import optuna

    pruner = optuna.pruners.MedianPruner(n_startup_trials=_RANDOM_TRIALS - 2)
    return optuna.load_study(study_name=_STUDY, storage=_storage(folder), pruner=pruner)


@contextmanager
def _next_trial(folder: Path, search: Search, trials: int) -> Iterator[optuna.Trial | None]:
    """A trial that is held by this process: one that was left behind, else a new one, else None.

    What a trial tries depends on its number and on what has ended before it, so that a search by
    one process that was stopped and went on finds what it would have found.
    """
    import optuna

    with contextlib.ExitStack() as held:
        with _alone(folder):
            study = _study(folder)
            begun = study.get_trials(deepcopy=False)
            trial = None
            for frozen in begun:
                if frozen.state.name == "RUNNING" and _hold(held, folder, frozen.number):
                    state = study.get_trials(deepcopy=False)[frozen.number].state
                    if state.name == "RUNNING":  # it had not ended when its holder let it go
                        trial = optuna.trial.Trial(study, frozen._trial_id)
                        break
            number = sum(frozen.state.name != "WAITING" for frozen in begun)
            study.sampler = optuna.samplers.TPESampler(
                seed=(search.seed * 1_000_003 + (number if trial is None else trial.number))
                % 2**32,  # numpy's generator takes no larger one
                n_startup_trials=_RANDOM_TRIALS,
            )
            if trial is None and number < trials:
                trial = study.ask()
                _hold(held, folder, trial.number)
        yield trial


def _hold(held: contextlib.ExitStack, folder: Path, number: int) -> bool:
    """Hold the folder of a trial, unless another process does."""
    try:
        held.enter_context(claim(_trial_folder(folder, number)))
    except InUseError:
        return False
    return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else is within such a block on the same folder."""
    from optuna.storages.journal import JournalFileOpenLock

    lock = JournalFileOpenLock(str(folder / SEARCH))
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _trial_folder(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:04}"


def _value(frozen: optuna.trial.FrozenTrial) -> float | None:
    """What a trial is worth, or its last report."""
    if frozen.state.name == "COMPLETE":
        return frozen.value
    reports = frozen.intermediate_values
    return reports[max(reports)] if reports else None


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
