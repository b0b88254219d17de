"""Several workers train one network."""
