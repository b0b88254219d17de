"""Archive → arrays → views."""
