"""The ``silo`` command."""
