"""The compute strip above the shim: containers as compute systems, and the stream of their exits."""
