"""Pages and pictures of the documentation, made from the code."""
