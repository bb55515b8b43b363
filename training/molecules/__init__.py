"""Reference data of atoms: the formats they come in, and their units."""
