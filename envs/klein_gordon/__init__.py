"""Klein-Gordon fields on lattices whose sites, or whose boundary sites, are agents."""
