"""From stored results to a comparison and the report of it."""
