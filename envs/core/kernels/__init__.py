"""What all compiled functions share."""
