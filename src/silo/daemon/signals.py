"""Signal names as Docker takes them."""

from __future__ import annotations

import signal

from silo.errors import InvalidParameter


def parse_signal(text: str) -> int:
    """``SIGTERM``, ``term``, ``RTMIN+3`` or ``15`` as a number.  Raises InvalidParameter with dockerd's text."""
    if text.isdecimal():
        number = int(text)
        if 0 < number < signal.NSIG:
            return number
        raise InvalidParameter(f"invalid signal: {text}")
    name = text.upper().removeprefix("SIG")
    base, plus, offset = name.partition("+")
    if base == "RTMIN" and plus and offset.isdecimal():
        return signal.SIGRTMIN + int(offset)
    base, minus, offset = name.partition("-")
    if base == "RTMAX" and minus and offset.isdecimal():
        return signal.SIGRTMAX - int(offset)
    try:
        return signal.Signals[f"SIG{name}"].value
    except KeyError:
        raise InvalidParameter(f"invalid signal: {text}") from None
