"""What a system is used through: PettingZoo, Gymnasium, Stable-Baselines3, TorchRL."""
