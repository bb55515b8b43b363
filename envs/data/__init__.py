"""Small tables that ship."""
