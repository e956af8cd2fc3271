"""The public shim: the Windows names (wclayer, HCS, HNS) over one door, :mod:`silo.hcsshim.gate`."""
