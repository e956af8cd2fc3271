"""Names for containers that were given none: an adjective and somebody to whom containers owe something."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

_HOW: Final = (
    "able agile amber ample apt artful balmy bold brave bright brisk calm candid cheerful civil clear clever "
    "cosy daring deft eager earnest fair fleet fond frank fresh gentle glad golden grand happy hardy honest "
    "humble jolly crisp keen kind lively loyal lucid mellow merry mild modest neat nimble noble patient placid "
    "plucky polite prime proud quick quiet rapid ready robust serene sharp silent simple sleek smart snug "
    "sober solid spry steady stoic sturdy subtle sunny swift tidy trusty upbeat valiant vivid warm wise witty "
    "zesty"
).split()
_WHO: Final = (
    "allen babbage bartik berners biro booch booth brooks buschnell cerf chappe church clark codd conway cray dahl "
    "dijkstra eckert engelbart floyd forsythe gray hamilton hoare hollerith holberton hopper huffman iverson jacquard "
    "joy karp kay keller kernighan kilburn knuth lamarr lamport leibniz liskov lovelace mauchly mccarthy mcnulty "
    "meitner milner minsky moore naur neumann newell noether noyce nygaard pascal perlis perlman postel rabin ritchie "
    "sammet scott shannon simon stallman sutherland tarjan thompson torvalds turing ullman wilkes wilkinson wing wirth "
    "yao zuse"
).split()


def invent(taken: Callable[[str], bool]) -> str:
    """A name that is free; a number is put behind it when chance finds none."""
    for attempt in range(100):
        name = f"{secrets.choice(_HOW)}_{secrets.choice(_WHO)}"
        if attempt > 5:
            name += str(secrets.randbelow(10 ** (attempt // 10 + 1)))
        if not taken(name):
            return name
    raise RuntimeError("no free container name in a hundred tries")
