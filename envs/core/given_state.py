"""States that worlds are asked to start from: checked before anything changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .rng import Rng
from .system import System
from .validation import nearest, shown


def given_state(
    system: System, options: dict[str, Any] | None, worlds: int
) -> dict[str, np.ndarray]:
    """The fields [worlds, ...] of `options["state"]` in the types of the system's state.

    {} where no state is given. Raises ValueError for what the state cannot have; see
    `VectorEnv.reset`.
    """
    require_options(options)
    if not options or options.get("state") is None:
        return {}
    with torch.no_grad():
        model = system.initial(Rng.single(0, 1), 1)
    given = options["state"]
    if isinstance(given, type(model)):
        given = given._asdict()
    if not isinstance(given, dict):
        raise ValueError(f"state={shown(given)} must be a dictionary of arrays by field")
    rows = {}
    for name, value in given.items():
        if name not in model._fields:
            hint = nearest(name, model._fields) if isinstance(name, str) else ""
            fields = ", ".join(model._fields)
            raise ValueError(f"state has no field {shown(name)}{hint} (has {fields})")
        rows[name] = _field(name, value, getattr(model, name).numpy(), worlds)
    others = (field.expand(worlds, *field.shape[1:]) for field in model)
    tensors = {name: torch.from_numpy(array) for name, array in rows.items()}
    state = type(model)(*others)._replace(**tensors)
    system.require_state(state)
    system.require_given(state)
    return rows


def require_options(options: Any) -> None:
    """Raise ValueError unless options of a reset are a dictionary or None."""
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(f"options={shown(options)} must be a dictionary")


def _field(name: str, value: Any, model: np.ndarray, worlds: int) -> np.ndarray:
    """A field of a given state [worlds, ...] in the type of `model` [1, ...]; else ValueError."""
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    shape = (worlds, *model.shape[1:])
    if worlds == 1 and array.shape == shape[1:]:
        array = array[None]
    if array.shape != shape:
        raise ValueError(f"state field {name!r} has shape {np.shape(value)}; it must be {shape}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"state field {name!r} is {array.dtype.name}; it must be numbers")
    if not np.isfinite(array).all():
        raise ValueError(f"state field {name!r} is not finite everywhere")
    with np.errstate(invalid="ignore", over="ignore"):
        rows = array.astype(model.dtype)
    exact = np.array_equal(rows, array) if model.dtype.kind in "biu" else np.isfinite(rows).all()
    if not exact:
        raise ValueError(f"state field {name!r} has values that are no {model.dtype.name}")
    return rows
