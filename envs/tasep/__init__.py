"""The totally asymmetric simple exclusion process."""
