"""The storage services: layers, scratch volumes and the filter that shows their union (overlayfs)."""
