"""Tables of metrics that were learned from samples."""
