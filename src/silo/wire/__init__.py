"""Codecs that do no I/O: bytes in, events or values out."""
