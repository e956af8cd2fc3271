"""The container network model: sandboxes, endpoints and networks, and drivers that know what these are."""
