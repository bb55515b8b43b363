"""An agent that moves through a plane with a metric, as cheaply as it can."""
