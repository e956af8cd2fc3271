"""Drivers of the container network model."""
