"""The client's side: the Engine API as the ``silo`` command speaks it."""
