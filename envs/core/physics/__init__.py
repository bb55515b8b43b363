"""What several systems share: space, cells, units, invariants, integrators."""
