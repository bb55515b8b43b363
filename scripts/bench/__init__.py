"""What the command `bench` measures, by subject: interfaces, learning, lattices, molecules."""
