"""Graph drivers: directories of files on top of each other."""
