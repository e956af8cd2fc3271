"""The Host Compute Service: compute systems and processes, on conmon and an OCI runtime."""
