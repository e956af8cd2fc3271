"""Silo: a container engine that speaks the Docker Engine API and is built like the Windows container stack."""

__version__ = "0.1.0"
