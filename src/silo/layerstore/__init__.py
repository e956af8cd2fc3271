"""Layers by content: which are there, on what, and who needs them."""
