"""The exact end of the score of `quadratic-regimes-v0`, and how near its policies come.

    python -m invariantzoo.figures.regimes_optimum [--episodes 10000]

Prints the largest return by dynamic programming on finer and finer grids, and the mean return of
the policy "adaptive". Some minutes of one core.
"""

from __future__ import annotations

from invariantzoo.report import figure_parser

ID = "quadratic-regimes-v0"
GRIDS = ((200, 17), (400, 33), (800, 33), (800, 65))


def main() -> None:
    """Compute and print."""
    import torch

    import invariantzoo
    from invariantzoo.envs.quadratic.optimum import best_return
    from invariantzoo.envs.quadratic.regimes import Quadratic

    args = figure_parser(__doc__, episodes=10_000).parse_args()
    torch.set_num_threads(1)
    system = invariantzoo.make_system(ID)
    assert isinstance(system, Quadratic)
    for heights, rates in GRIDS:
        best = best_return(system, heights=heights, rates=rates)
        print(f"{heights} heights, {rates} rates: {best:.4f}")
    policy = invariantzoo.make_policy("adaptive", system)
    scores = invariantzoo.evaluate(
        system, policy, episodes=args.episodes, seeds=1, deterministic=False
    )
    returns = scores["return"]
    error = returns.std() / returns.size**0.5
    print(f"adaptive, {returns.size} episodes: {returns.mean():.4f} +- {error:.4f}")


if __name__ == "__main__":
    main()
