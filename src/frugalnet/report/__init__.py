"""Stored results to a comparison, findings and a report; never imports torch."""
