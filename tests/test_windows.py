"""Windows of human environments: each is its own, and outlives what others do with pygame."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pygame
import pytest

import invariantzoo
from invariantzoo.envs.core.rendering.painter import Painter
from invariantzoo.envs.core.rendering.window import Window

SMALL = "particles-encounter-v0"
LARGE = "particles-crowd-v0"


@pytest.fixture(autouse=True)
def _no_display(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Windows that nobody sees."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    yield
    pygame.quit()


def actions(env: Any) -> dict[str, Any]:
    return {agent: env.action_space(agent).sample() for agent in env.agents}


def opened(id: str = SMALL) -> Any:
    """A human environment whose window is open."""
    env = invariantzoo.parallel_env(id, render_mode="human", horizon=50)
    env.reset(seed=0)
    env.step(actions(env))
    assert window_of(env) is not None
    return env


def window_of(env: Any) -> pygame.Window | None:
    window = env._painter._window
    return None if window is None else window._window


def shown(env: Any) -> np.ndarray:
    """What stands in the window of an environment [height, width, 3]."""
    window = window_of(env)
    assert window is not None
    return pygame.surfarray.array3d(window.get_surface()).swapaxes(0, 1)


def picture(env: Any) -> np.ndarray:
    return Painter().draw(env.system.scene(env._env.tensors))


def close_cart_pole() -> None:
    other = gymnasium.make("CartPole-v1", render_mode="human")
    other.reset(seed=0)
    other.step(0)
    other.close()


def quit_and_start_again() -> None:
    """No sign is left of it but that the memory of all windows has been freed."""
    pygame.display.quit()
    pygame.display.init()
    pygame.display.set_mode((32, 32))


def quit_all_and_start_again() -> None:
    pygame.quit()
    pygame.init()
    pygame.display.set_mode((32, 32))


def quit_display() -> None:
    pygame.display.quit()


def close_another_environment() -> None:
    opened(LARGE).close()


def close_a_vec_env() -> None:
    env = invariantzoo.vec_env(SMALL, n_worlds=2, render_mode="human")
    env.reset()
    env.render()
    env.close()


@pytest.mark.parametrize(
    "disturb",
    [
        close_another_environment,
        close_a_vec_env,
        close_cart_pole,
        pygame.quit,
        quit_display,
        pygame.display.quit,  # as somebody holds it who imported it earlier
        quit_and_start_again,
        quit_all_and_start_again,
    ],
)
def test_goes_on_after(disturb: Callable[[], None]) -> None:
    env, quiet = opened(), invariantzoo.parallel_env(SMALL, horizon=50)
    quiet.reset(seed=0)
    quiet.step({agent: np.zeros(5, np.float32) for agent in quiet.agents})
    env.reset(seed=0)
    env.step({agent: np.zeros(5, np.float32) for agent in env.agents})
    for _ in range(3):
        disturb()
        given = actions(env)
        seen, rewards, *_ = env.step(given)
        expected, expected_rewards, *_ = quiet.step(given)
        assert rewards == expected_rewards
        assert all(np.array_equal(seen[agent], expected[agent]) for agent in seen)
        assert np.array_equal(shown(env), picture(env))
    env.close()
    assert pygame.display.quit.__module__ == "pygame.display"


def test_two_sizes_stay_two_sizes() -> None:
    small, large = Window((64, 48), title="small", fps=100), Window((200, 90), title="", fps=100)
    red, blue = np.zeros((48, 64, 3), np.uint8), np.zeros((90, 200, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    for _ in range(3):
        for window, image in ((small, red), (large, blue)):
            window.show(image)
            inside = window._window
            assert inside is not None
            assert np.array_equal(
                pygame.surfarray.array3d(inside.get_surface()).swapaxes(0, 1), image
            )
    assert small._window is not None
    assert small._window.size == (64, 48)
    small.close()
    large.show(blue)
    large.close()


def test_closing_leaves_the_windows_of_others_open() -> None:
    surface = pygame.display.set_mode((40, 30))
    another = pygame.Window("another", (50, 20))
    env = opened()
    env.close()
    surface.fill((1, 2, 3))
    pygame.display.flip()
    another.get_surface().fill((1, 2, 3))
    another.flip()
    assert surface.get_size() == (40, 30)
    assert another.size == (50, 20)


def test_closing_twice_and_stepping_after() -> None:
    env = opened()
    env.close()
    env.close()
    env.step(actions(env))  # a new window
    assert np.array_equal(shown(env), picture(env))
    env.close()


def test_the_user_closes_one_of_two() -> None:
    first, second = opened(), opened(LARGE)
    pygame.event.post(pygame.event.Event(pygame.WINDOWCLOSE, window=window_of(first)))
    for env in (first, second, first, second):
        env.step(actions(env))
    assert window_of(first) is None
    assert np.array_equal(shown(second), picture(second))
    first.close()
    second.close()


def test_each_window_has_its_own_events() -> None:
    first, second = (Window((32, 32), title="", fps=100) for _ in range(2))
    for window in (first, second):
        window.events()
    key = pygame.event.Event(pygame.KEYDOWN, key=pygame.K_n, mod=0, window=second._window)
    pygame.event.post(key)
    assert [event.type for event in first.events()] == []
    assert [event.type for event in second.events()] == [pygame.KEYDOWN]
    pygame.event.post(pygame.event.Event(pygame.QUIT))  # the whole program is asked to end
    assert [event.type for event in second.events()] == [pygame.QUIT]
    assert [event.type for event in first.events()] == [pygame.QUIT]
    first.close()
    second.close()


def test_events_of_other_windows_are_left_to_them() -> None:
    another = pygame.Window("another", (50, 20))
    ours = Window((32, 32), title="", fps=100)
    ours.events()
    pygame.event.clear()
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_n, mod=0, window=another))
    assert ours.events() == []
    assert [event.type for event in pygame.event.get()] == [pygame.KEYDOWN]
    ours.close()


def test_goes_on_without_when_the_display_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    env = opened()
    pygame.quit()
    monkeypatch.setenv("SDL_VIDEODRIVER", "no such driver")
    rewards = env.step(actions(env))[1]
    assert len(rewards) == 2
    assert window_of(env) is None
    env.step(actions(env))
    env.close()


def test_a_forgotten_window_leaves_nothing_behind() -> None:
    window = Window((32, 32), title="", fps=100)
    del window
    pygame.display.quit()
    assert pygame.display.quit.__module__ == "pygame.display"


@pytest.mark.skipif(shutil.which("xvfb-run") is None, reason="there is no Xvfb")
def test_on_a_real_display() -> None:
    """Two windows, and others that come and go, under X."""
    code = """
import pygame, test_windows as t
env, other = t.opened(), t.opened(t.LARGE)
for disturb in (t.close_cart_pole, t.quit_and_start_again, t.quit_all_and_start_again):
    disturb()
    for one in (env, other):
        one.step(t.actions(one))
        assert (t.shown(one) == t.picture(one)).all()
other.close()
env.step(t.actions(env))
print(pygame.display.get_driver())
"""
    environ = {**os.environ, "SDL_VIDEODRIVER": "x11", "SDL_AUDIODRIVER": "dummy"}
    command = ["xvfb-run", "-a", "-s", "-noreset", sys.executable, "-c", code]
    found = subprocess.run(
        command, env=environ, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert found.stdout.split()[-1:] == ["x11"], found.stderr[-2000:]


def test_a_clock_that_starts_anew_is_not_waited_for() -> None:
    """SDL counts from zero after it was shut down, however long the process has run."""
    while pygame.time.get_ticks() < 1500:
        pygame.time.wait(50)
    window = Window((64, 48), title="", fps=100)
    image = np.zeros((48, 64, 3), np.uint8)
    window.show(image)
    quit_all_and_start_again()
    assert window.show(image) < 1.0
    window.close()
