"""How agents learn: Stable-Baselines3, descent through the dynamics, and how they are scored."""
