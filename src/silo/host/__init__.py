"""The Windows host services on Linux: storage filter, HNS and HCS, reached only through ``hcsshim.gate``."""
