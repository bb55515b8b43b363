"""Reference runs by programs of quantum chemistry."""
