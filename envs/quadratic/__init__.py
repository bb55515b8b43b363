"""A quadratic loss with noise: the regimes of learning, exactly."""
