"""Gradients of single samples as a network learns: what is kept, judged and printed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import invariantzoo
from invariantzoo.__main__ import main
from invariantzoo.training.geometry.criticality import SampleRecorder, columns, described, judge
from invariantzoo.training.geometry.criticality_plot import draw_criticality
from invariantzoo.training.geometry.regimes import sample_gradients


def squares(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().sum()


def learned(n: int = 300) -> tuple[nn.Sequential, SampleRecorder, Tensor, Tensor]:
    """A small net, a recorder that has seen one batch, and the batch."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    recorder = SampleRecorder(n).attach(network)
    squares(network(x), y).backward()
    return network, recorder, x, y


def test_what_is_kept_are_the_gradients_of_single_samples() -> None:
    network, recorder, x, y = learned()
    recorder.detach()
    verdicts, each = recorder.verdicts(), sample_gradients(network, squares, x, y).abs()
    start = 0
    for name, p in network.named_parameters():
        layer, _, kind = name.rpartition(".")
        own = each[:, start : start + p.numel()].flatten()
        start += p.numel()
        kept = verdicts[f"{layer} {kind}"].sizes
        torch.testing.assert_close(kept.sort().values, own[own > 0].sort().values)
    assert len(recorder) == 300


def test_the_back_signal_is_shuffled_against_the_slope() -> None:
    """Known for the layer with an activation behind it alone; small where the two hardly depend."""
    _, recorder, _, _ = learned(3000)
    verdicts = recorder.verdicts()
    assert abs(verdicts["0 bias"].coupling) < 0.3
    assert verdicts["0 bias"].coupling != 0
    assert math.isnan(verdicts["2 bias"].coupling)


def test_a_window_pausing_and_leaving() -> None:
    network, recorder, x, y = learned()
    recorder.window = 200
    squares(network(x[:150]), y[:150]).backward()
    squares(network(x[:150]), y[:150]).backward()
    assert len(recorder) == 300  # whole chunks, at least the window
    recorder.clear()
    recorder.paused = True
    squares(network(x), y).backward()
    assert len(recorder) == 0
    recorder.paused = False
    recorder.detach()
    squares(network(x), y).backward()
    assert len(recorder) == 0
    assert recorder.verdicts() == {}


def test_fewer_sizes_are_judged_where_that_is_asked_for() -> None:
    """Of samples at equal distances, biases and weights alike."""
    _, recorder, _, _ = learned()
    each = recorder.verdicts()
    recorder.most = 100
    few = recorder.verdicts()
    assert {name: len(verdict.sizes) for name, verdict in each.items()} == {
        "0 bias": 1200,
        "0 weight": 3600,
        "2 bias": 600,
        "2 weight": 2400,
    }
    assert {name: len(verdict.sizes) for name, verdict in few.items()} == {
        "0 bias": 100,
        "0 weight": 108,
        "2 bias": 100,
        "2 weight": 104,
    }
    assert torch.isin(few["0 weight"].sizes, each["0 weight"].sizes).all()
    with pytest.raises(ValueError, match="most=0 must be a whole number of at least 50"):
        SampleRecorder(most=0)


def test_a_recorder_stops_by_itself_when_it_has_enough() -> None:
    """With the first samples, of every layer whose optimizer has made a step by then."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(network.parameters(), 0.0)
    recorder = SampleRecorder(100, once=True).attach(network, optimizer)
    for step in range(5):
        optimizer.zero_grad()
        ((step + 1) * network(torch.ones(60, 3))).sum().backward()
        optimizer.step()
        assert recorder.paused == (step > 1)
    sizes = recorder.verdicts()["2 bias"].sizes
    assert sizes.unique().tolist() == [1, 2]
    recorder.clear()
    recorder.paused = False
    network(torch.ones(60, 3)).sum().backward()
    optimizer.step()
    assert len(recorder) == 60


def test_gradients_made_to_follow_a_law(tmp_path: Path) -> None:
    """A sigmoid of a uniform, deep z and cross-entropy: an exponent of 1 over three decades."""
    generator = torch.Generator().manual_seed(2)
    z = 30 * torch.rand(400_000, generator=generator, dtype=torch.float64)
    law = judge(torch.sigmoid(-z))
    assert law.law is not None
    assert law.law.exponent == pytest.approx(1, abs=0.02)
    assert law.law.is_power_law
    bump = judge(torch.exp(2 * torch.randn(100_000, generator=generator, dtype=torch.float64)))
    assert bump.law is not None
    assert not bump.law.is_power_law
    few = judge(torch.ones(10))
    assert few.law is None
    assert few.text == "too few samples"
    verdicts = {"a bias": law, "a weight": bump, "b bias": few}
    row = columns(verdicts)
    assert row["criticality/a/bias/is_power_law"] == 1
    assert row["criticality/a/weight/is_power_law"] == 0
    assert not any(name.startswith("criticality/b") for name in row)
    told = described(verdicts)
    assert [entry["layer"] for entry in told] == ["a", "a", "b"]
    json.dumps(told, allow_nan=False)
    draw_criticality(verdicts, tmp_path / "picture.png", title="three")
    assert (tmp_path / "picture.png").stat().st_size > 5000


def test_the_error_of_an_exponent_knows_that_sizes_of_a_sample_go_together() -> None:
    """Sizes of a sample are a scale, of an exact law, times numbers of its own."""
    exponents, errors, independent, passed = [], [], 0, 0
    for seed in range(16):
        generator = torch.Generator().manual_seed(seed)
        u = torch.rand(1000, 1, generator=generator, dtype=torch.float64)
        scale = (1e3 + u * (1 - 1e3)) ** -2
        law = judge((scale * torch.randn(1000, 16, generator=generator)).abs()).law
        assert law is not None
        exponents.append(law.exponent)
        errors.append(law.error)
        many = judge((scale * torch.randn(1000, 100, generator=generator)).abs()).law
        assert many is not None
        independent += many.ks < 1.4 / math.sqrt(many.n)
        passed += many.ks < many.bound
    spread = float(np.std(exponents, ddof=1))
    assert abs(np.mean(exponents) - 1.5) < spread
    assert 0.6 * spread < np.mean(errors) < 1.6 * spread
    assert passed >= 15
    assert independent <= 8
    alone = judge(scale)
    assert alone.law is not None
    plain = invariantzoo.fit_power_law(scale, alone.law.low, alone.law.high)
    assert plain.error <= alone.law.error < 1.2 * plain.error


def test_a_bend_is_no_chance_where_sizes_go_together() -> None:
    """A log-normal law of scales, whose sizes go together: bends are seen as before."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.exp(2 * torch.randn(4000, 1, generator=generator, dtype=torch.float64))
    law = judge((scale * torch.randn(4000, 16, generator=generator)).abs()).law
    assert law is not None
    assert law.ks > law.bound


def test_a_callback_logs_it() -> None:
    from stable_baselines3 import PPO

    env = invariantzoo.vec_env("particles-encounter-v0", n_worlds=8, seed=0)
    model = PPO("MlpPolicy", env, n_steps=32, batch_size=128, n_epochs=1, seed=0)
    watch = invariantzoo.CriticalityCallback(every=2, window=512)
    logged: list[str] = []
    record = watch._on_rollout_start

    def listen() -> None:
        record()
        logged.extend(k for k in model.logger.name_to_value if k.startswith("criticality/"))

    watch._on_rollout_start = listen  # type: ignore[method-assign]
    model.learn(2 * 32 * 16, callback=watch)
    assert any(name.endswith("action_net/bias/exponent") for name in logged)
    assert watch.verdicts
    with pytest.raises(ValueError, match="every=0 must be a whole number of at least 1"):
        invariantzoo.CriticalityCallback(every=0)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    small = [
        "--no-film",
        "--no-baselines",
        "--steps",
        "64",
        "--set",
        "n_worlds=4",
        "--set",
        "n_steps=8",
        "--set",
        "batch_size=32",
        "--set",
        "horizon=8",
    ]
    assert main(["train", "particles-encounter-v0", "--out", str(run), *small]) == 0
    capsys.readouterr()
    assert main(["criticality", str(run), "--samples", "300", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["algo"] == "ppo"
    assert {part["kind"] for part in report["parts"]} == {"bias", "weight"}
    assert (run / "criticality.png").exists()
    assert main(["criticality", str(run), "--samples", "20"]) == 2
    assert "--samples 20 must be at least 200" in capsys.readouterr().err


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 4, 3, stride=2, padding=1, padding_mode="circular", groups=2),
        nn.Conv2d(2, 3, 3, dilation=2),
        nn.ConvTranspose2d(2, 3, 3, stride=2),
    ],
    ids=str,
)
def test_convolutions(layer: nn.Module) -> None:
    """Gradients of single samples as `torch.func` gives them; the back-signal is shuffled too."""
    network = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.LazyLinear(2)).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(400, 2, 7, 7, generator=generator, dtype=torch.float64)
    y = torch.randn(400, 2, generator=generator, dtype=torch.float64)
    network(x[:1])
    recorder = SampleRecorder(400).attach(network)
    squares(network(x), y).backward()
    verdicts = recorder.verdicts()
    assert len(recorder) == 400  # judging keeps nothing more
    recorder.detach()
    each = sample_gradients(network, squares, x, y).abs()
    n = layer.get_parameter("weight").numel()
    for kind, own in (
        ("weight", each[:, :n]),
        ("bias", each[:, n : n + layer.get_parameter("bias").numel()]),
    ):
        kept = verdicts[f"0 {kind}"].sizes.sort().values
        torch.testing.assert_close(kept, own[own > 0].sort().values)
    assert math.isfinite(verdicts["0 bias"].coupling)


def test_what_is_not_told_is_named() -> None:
    """No biases where there are none, nothing of frozen weights; the rest is left out by name."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(3, 4, bias=False), nn.LayerNorm(4), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)
    )
    network[2].requires_grad_(False)
    recorder = SampleRecorder(100).attach(network)
    squares(network(torch.randn(100, 3)), torch.randn(100, 2)).backward()
    assert set(recorder.verdicts()) == {"0 weight", "4 bias", "4 weight"}
    assert recorder.left_out() == dict.fromkeys(
        ("1.weight", "1.bias"), "neither linear nor a convolution"
    )
    alone = nn.Linear(3, 2)
    recorder = SampleRecorder(100).attach(alone)
    squares(alone(torch.randn(100, 3)), torch.randn(100, 2)).backward()
    assert recorder.left_out() == {}
    with pytest.raises(ValueError, match="network: '1' is a BatchNorm1d, which mixes the samples"):
        SampleRecorder().attach(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))


def test_what_follows_by_chance_or_twice_is_no_slope() -> None:
    """Dropout is not called anew, which would change a run; a module used twice has no slope."""
    torch.manual_seed(0)
    twice = nn.Tanh()
    network = nn.Sequential(
        nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 4), twice, nn.Linear(4, 4), twice
    )
    recorder = SampleRecorder(200).attach(network)
    loss = squares(network(torch.randn(200, 3)), torch.randn(200, 4))
    before = torch.get_rng_state()
    loss.backward()
    assert torch.equal(before, torch.get_rng_state())
    verdicts = recorder.verdicts()
    assert all(math.isnan(verdict.coupling) for verdict in verdicts.values())


def test_gradients_that_are_not_finite_do_not_count() -> None:
    sizes = torch.cat([torch.logspace(-9, 0, 5000), torch.tensor([math.nan, math.inf])])
    verdict = judge(sizes)
    assert len(verdict.sizes) == 5000
    assert verdict.law is not None
    assert math.isfinite(verdict.law.exponent)


def test_the_command_for_descent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    small = [
        "--no-film",
        "--no-baselines",
        "--algo",
        "descent",
        "--steps",
        "64",
        "--set",
        "n_worlds=4",
        "--set",
        "horizon=8",
    ]
    assert main(["train", "particles-encounter-v0", "--out", run, *small]) == 0
    capsys.readouterr()
    assert main(["criticality", run, "--samples", "300", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["algo"] == "descent"


def test_a_layer_learns_from_the_steps_of_its_own_optimizer() -> None:
    """A loss that only passes through a layer is not its own; accumulated ones are all its own."""
    torch.manual_seed(0)
    network = nn.ModuleDict({"actor": nn.Linear(3, 2), "critic": nn.Linear(2, 1)})
    actor, critic = network["actor"], network["critic"]
    of_actor, of_critic = (torch.optim.SGD(part.parameters(), 0.0) for part in (actor, critic))
    x, a = torch.randn(60, 3), torch.randn(60, 2)
    recorder = SampleRecorder(1000).attach(network, of_actor, of_critic)
    for none in (True, False):  # the two ways to forget gradients
        recorder.clear()
        for _ in range(2):
            of_critic.zero_grad(set_to_none=none)
            critic(a).sum().backward()
            (10 * critic(a)).sum().backward()
            of_critic.step()
            of_actor.zero_grad(set_to_none=none)
            (1000 * critic(actor(x))).sum().backward()
            of_actor.step()
        sizes = recorder.verdicts()["critic bias"].sizes
        assert sizes.unique().tolist() == [1, 10]
        assert len(sizes) == 240
        assert len(recorder.verdicts()["actor bias"].sizes) == 240
    recorder.detach()
    assert not of_critic._optimizer_step_pre_hooks


def test_sac_s_critics_are_judged_by_their_own_loss() -> None:
    """With rewards and values of 0 a critic's own loss is small; the actor's is one of size 1."""
    from stable_baselines3 import SAC

    model = SAC("MlpPolicy", "Pendulum-v1", learning_starts=60, batch_size=64, seed=0)
    recorder = SampleRecorder(64).attach(model.policy)
    given: list[Tensor] = []
    last: Any = model.critic.q_networks[0][-1]
    step = model.critic.optimizer.register_step_pre_hook(
        lambda *_: given.append(last.bias.grad.clone())
    )
    model.learn(70)
    step.remove()
    (_, s), *others = recorder._signals["critic.qf0.4"][::-1]
    assert others == []
    torch.testing.assert_close(s.sum(0), given[-1])
    assert not any(name.startswith("critic_target") for name in recorder.left_out())


def test_layers_without_gradients_of_single_samples_are_left_out() -> None:
    torch.manual_seed(0)
    x = torch.randn(100, 3)
    twice, last = nn.Linear(3, 3), nn.Linear(3, 3)
    network = nn.Sequential(twice, nn.Tanh(), twice, nn.Tanh(), last)
    recorder = SampleRecorder(100).attach(network)
    squares(network(x), x).backward()
    assert set(recorder.verdicts()) == {"4 bias", "4 weight"}
    assert set(recorder.left_out()) == {"0.weight", "0.bias"}
    assert set(recorder.left_out().values()) == {"used more than once in a pass"}

    tied = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    tied[2].weight = tied[0].weight
    recorder = SampleRecorder(100).attach(tied)
    squares(tied(x), x).backward()
    assert recorder.verdicts() == {}
    assert recorder.left_out()["0.weight"] == "of weights that layers share"

    recorder = SampleRecorder(100).attach(last)
    for row in x:
        squares(last(input=row), row).backward()
    assert recorder.verdicts() == {}
    assert "without an axis of samples" in recorder.left_out()["weight"]

    recorder = SampleRecorder(150).attach(last)
    (squares(last(x), x) + squares(last(input=x[:50]), x[:50])).backward()  # two calls: 150 rows
    assert len(recorder.verdicts()[" bias"].sizes) == 450


def test_a_network_is_watched_only_while_samples_are_gathered() -> None:
    """Between judgements it runs as if there were no callback: no hooks, empty places skipped."""
    from invariantzoo.training.rl.sb3 import PPOConfig, Trainer

    system = invariantzoo.make_system("particles-encounter-v0")
    config = PPOConfig(network="pair", n_worlds=4, n_steps=16, batch_size=64, n_epochs=1)
    trainer = Trainer(system, config, seed=0, steps=10**6)
    model, actor = trainer.model, trainer.model.policy.actor
    watched: list[tuple[bool, bool]] = []

    class Watch(invariantzoo.CriticalityCallback):
        def _on_rollout_start(self) -> None:
            super()._on_rollout_start()
            watched.append((bool(model.policy._forward_pre_hooks), actor.skip_empty))

        def _on_rollout_end(self) -> None:
            super()._on_rollout_end()
            watched.append((bool(model.policy._forward_pre_hooks), actor.skip_empty))

    model.learn(5 * trainer.per_update, callback=Watch(every=3, window=64))
    free, seen = (False, True), (True, False)
    assert watched == [free, seen, *[free] * 5, seen, free, free]
    assert not model.policy._forward_pre_hooks
    assert actor.skip_empty


def test_small_rollouts_are_gathered() -> None:
    """Until there is a window of samples: A2C learns from 20 rows at a time."""
    from stable_baselines3 import A2C

    env = invariantzoo.vec_env("particles-encounter-v0", n_worlds=2, seed=0)
    watch = invariantzoo.CriticalityCallback(every=2, window=100)
    A2C("MlpPolicy", env, seed=0).learn(20 * 8, callback=watch)
    assert len(watch.verdicts["action_net bias"].sizes) == 100 * env.action_space.shape[0]
