"""Trained networks behind HTTP: one application, which answers programs and shows a page in the browser."""
