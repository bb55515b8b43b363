"""A trained policy as a folder to share: a model card, its weights as safetensors, its config.

Nothing in it is ever unpickled, so that it can be read whoever wrote it. `load_run` reads it.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch

from ...envs.core.extras import require_extra
from ...envs.core.files import write_folder
from ...envs.core.registry import spec, system_class
from .folder import CONFIG, FILM, SCORES, WEIGHTS, read_progress

CARD, REPLAY = "README.md", "replay.mp4"  # as model hubs expect them
PARTS = ("policy", "network")  # of a trainer's state: what holds the weights of a policy


def export(folder: Path, config: dict[str, Any], state: dict[str, Any], out: Path) -> list[str]:
    """Write the policy of the run in `folder` as `out`; returns the names of the files.

    config, state: of its config.json and checkpoint.pt.  out: absent or an empty folder; it appears
    whole or not at all.
    """
    require_extra("safetensors", "hub")
    from safetensors.torch import save

    weights = save(weights_of(state))
    made = _made(state, read_progress(folder)) or config["steps"]
    report = _report(folder / SCORES)
    ended = report.get("steps", made) == made  # not of a shorter training, which went on since
    film = ended and (folder / FILM).is_file()
    text = card({**config, "steps": made}, report["scores"] if ended else {}, film=film)

    def write(part: Path) -> None:
        (part / WEIGHTS).write_bytes(weights)
        (part / CARD).write_text(text, encoding="utf-8")
        shutil.copyfile(folder / CONFIG, part / CONFIG)
        if film:
            shutil.copyfile(folder / FILM, part / REPLAY)

    out.parent.mkdir(parents=True, exist_ok=True)
    write_folder(out, write)
    return [CARD, CONFIG, WEIGHTS, *([REPLAY] if film else [])]


def _made(state: dict[str, Any], rows: list[dict[str, float]]) -> int:
    """Agent-steps of a checkpoint, 0 if not known: rows of a killed process may go beyond it.

    Trainers of ours count updates, each of which has a row.
    """
    if "steps" in state:
        return int(state["steps"])
    rows = rows[: state.get("update")]
    return int(rows[-1]["steps"]) if rows else 0


def _report(path: Path) -> dict[str, Any]:
    """scores.json, with summaries by policy and metric as "scores"; none where there is no file.

    Raises ValueError for a file that holds none.
    """
    if not path.is_file():
        return {"scores": {}}
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        scores = {
            policy: {
                metric: {name: _number(summary[name]) for name in ("mean", "se")}
                for metric, summary in summaries.items()
            }
            for policy, summaries in report["scores"].items()
        }
        return {**report, "scores": scores}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def _number(value: Any) -> float:
    """A number of scores.json, where null stands for what is not defined."""
    return math.nan if value is None else float(value)


def weights_of(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Tensors of a policy by name, "policy.…" or "network.…", each with memory of its own."""
    return {
        f"{part}.{name}": weight.detach().cpu().clone().contiguous()
        for part in PARTS
        for name, weight in state.get(part, {}).items()
    }


def read_weights(path: Path) -> dict[str, Any]:
    """What `weights_of` was made of; ValueError for what is no file of weights."""
    require_extra("safetensors", "hub")
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        # Read, not mapped into memory: a file that somebody cuts short then ends no process.
        weights = load(path.read_bytes())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    state: dict[str, Any] = {}
    for name, weight in weights.items():
        part, _, rest = name.partition(".")
        if part not in PARTS or not rest:
            raise ValueError(f"{path}: {name!r} is no weight of a policy of ours")
        state.setdefault(part, {})[rest] = weight
    return state


def card(config: dict[str, Any], scores: dict[str, Any], *, film: bool = False) -> str:
    """The model card: what hubs read between two lines of dashes, then what people read.

    scores: policy -> metric -> summary, as in scores.json; may be empty.
    """
    id, algo = config["id"], config["algo"]
    trained: dict[str, Any] = scores.get("trained", {})
    likely = not system_class(id).stochastic  # as it was scored
    head = ["---", "library_name: invariantzoo", "tags:"]
    kinds = ("reinforcement-learning", "multi-agent-reinforcement-learning")
    head += [f"- {json.dumps(tag)}" for tag in (*kinds, "invariantzoo", id, algo)]
    if trained:
        head += [
            "model-index:",
            f"- name: {json.dumps(f'{algo} on {id}')}",
            "  results:",
            "  - task: {type: reinforcement-learning, name: reinforcement-learning}",
            f"    dataset: {{name: {json.dumps(id)}, type: {json.dumps(id)}}}",
            "    metrics:",
        ]
        for name, summary in trained.items():
            if math.isnan(summary["mean"]):
                continue  # no episode defined it
            value = json.dumps(_with_error(summary, "+/-"))
            label = json.dumps("mean_reward" if name == "return" else name)
            head.append(f"    - {{type: {label}, value: {value}, name: {json.dumps(name)}}}")
    lines = [*head, "---", "", f"# {algo} on {id}", "", f"{_sentence(spec(id).summary)}", ""]
    lines += [f"![the policy at work]({REPLAY})", ""] if film else []
    lines += [
        f"Trained for {config['steps']:,} agent-steps with seed {config['seed']}, by "
        f"InvariantZoo {config['version']}; the network is `{config['network']}`.",
        "",
        "```python",
        "import invariantzoo",
        "",
        'run = invariantzoo.load_run(".")  # the folder that holds this file',
        "env = invariantzoo.VectorEnv(run.system, 16, seed=0)",
        f"player = invariantzoo.Player(env, run.policy, deterministic={likely})",
        "step = player.step(env.reset())",
        "```",
        "",
        f"From the shell: `invariantzoo rollout {id} --policy . --human`. Both need",
        '`pip install "invariantzoo[hub]"`.',
        "",
    ]
    if scores:
        lines += ["## Scores", "", "Mean and standard error over episodes, on held-out seeds.", ""]
        metrics = list(next(iter(scores.values())))
        lines += [_row("policy", *metrics), _row(*["---"] * (1 + len(metrics)))]
        for policy, summaries in scores.items():
            cells = map(summaries.get, metrics)
            lines.append(_row(policy, *(_with_error(s, "±") if s else "–" for s in cells)))
        lines.append("")
    for title, values in (
        ("Parameters of the system", config["parameters"]),
        ("Hyper-parameters", config["hyperparameters"]),
    ):
        lines += [f"## {title}", "", _row("name", "value"), _row("---", "---")]
        lines += [_row(f"`{name}`", f"`{value!r}`") for name, value in values.items()]
        lines.append("")
    return "\n".join(lines)


def _with_error(summary: dict[str, float], sign: str) -> str:
    """A mean and its standard error, as far as they are defined."""
    mean, error = summary["mean"], summary["se"]
    if math.isnan(mean):
        return "–"
    return f"{mean:.4g}" if math.isnan(error) else f"{mean:.4g} {sign} {error:.2g}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
