"""What happened: spans, and the effects that the host's code records on them.

A span is one crossing of a storey, named ``package::Function`` with the Windows name where there is one.  Effects are
the kernel and disk objects made (``+``) or removed (``-``) while the span was the innermost one.  Recording is always
on: a span costs a few microseconds, and a finished tree goes to the sink in one piece.
"""

from __future__ import annotations

import functools
import inspect
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, ParamSpec, Protocol, TypeVar

import msgspec

P = ParamSpec("P")
R = TypeVar("R")

MAX_SPANS: Final = 2000
"""Spans kept of one trace; later ones are counted in the root's ``dropped_spans``."""
MAX_VALUE: Final = 2048
"""Characters kept of one attribute."""


class Effect(msgspec.Struct, frozen=True):
    """One object of the host made or removed: ``kind`` is mount, netns, link, nft, cgroup, process, file ..."""

    kind: str
    action: str
    object: str


class Span(msgspec.Struct):
    """One call through one storey.  Times are nanoseconds since the epoch, as in OTLP."""

    span_id: str
    parent_id: str | None
    name: str
    start_ns: int
    duration_ns: int = 0
    attributes: dict[str, Any] = {}
    effects: list[Effect] = []
    status: str = "unset"
    error: str | None = None


class Trace(msgspec.Struct):
    """A root span and all below it, in the order they began.  ``container`` is set once the id is known."""

    trace_id: str
    root: str
    spans: list[Span]
    container: str | None = None


class Sink(Protocol):
    """Is told of every trace; must not block."""

    def begin(self, trace: Trace) -> None:
        """``trace`` has its root span and will grow."""
        ...

    def end(self, trace: Trace) -> None:
        """``trace`` is complete: keep it."""
        ...


_span: ContextVar[Span | None] = ContextVar("silo_span", default=None)
_trace: ContextVar[Trace | None] = ContextVar("silo_trace", default=None)
_sink: ContextVar[Sink | None] = ContextVar("silo_sink", default=None)


def use_sink(sink: Sink) -> None:
    """Send the traces that begin in this context, and in the tasks started from it, to ``sink``."""
    _sink.set(sink)


def _clip(value: Any) -> Any:
    if isinstance(value, bool | int | float) or value is None:
        return value
    text = str(value)
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}... ({len(text)} characters)"


@contextmanager
def span(name: str, /, **attributes: Any) -> Generator[Span]:
    """Record the block as a span below the current one; without a current one it is the root of a new trace."""
    parent, trace = _span.get(), _trace.get()
    now = Span(secrets.token_hex(8), parent.span_id if parent else None, name, time.time_ns())
    now.attributes = {key: _clip(value) for key, value in attributes.items()}
    began = time.perf_counter_ns()
    root = trace is None
    if trace is None:
        trace = Trace(secrets.token_hex(16), now.span_id, [])
    if len(trace.spans) < MAX_SPANS:
        trace.spans.append(now)
    else:
        first = trace.spans[0].attributes
        first["dropped_spans"] = first.get("dropped_spans", 0) + 1
    tokens = _span.set(now), _trace.set(trace)
    sink = _sink.get()
    if root and sink is not None:
        sink.begin(trace)
    try:
        yield now
        if now.status == "unset":
            now.status = "ok"
    except Exception as exc:
        now.status, now.error = "error", _clip(f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__)
        raise
    except BaseException:
        now.status = "cancelled"  # nobody wants the outcome any more: that is no failure
        raise
    finally:
        now.duration_ns = time.perf_counter_ns() - began
        _span.reset(tokens[0])
        _trace.reset(tokens[1])
        if root and sink is not None:
            sink.end(trace)


@contextmanager
def new_trace(name: str, /, **attributes: Any) -> Generator[Span]:
    """Like :func:`span`, but always the root of a new trace (work that outlives the request it began in)."""
    tokens = _span.set(None), _trace.set(None)
    try:
        with span(name, **attributes) as now:
            yield now
    finally:
        _span.reset(tokens[0])
        _trace.reset(tokens[1])


def effect(kind: str, action: str, obj: object) -> None:
    """Record on the current span that an object of the host was made (``+``) or removed (``-``)."""
    now = _span.get()
    if now is not None:
        now.effects.append(Effect(kind, action, str(obj)))


def annotate(**attributes: Any) -> None:
    """Add attributes (a result, an exit code) to the current span."""
    now = _span.get()
    if now is not None:
        now.attributes.update({key: _clip(value) for key, value in attributes.items()})


def fail(exc: BaseException) -> None:
    """Mark the current span as failed by an error that is answered and therefore not raised through it."""
    now = _span.get()
    if now is not None:
        now.status, now.error = "error", _clip(f"{type(exc).__name__}: {exc}")


def assign(container_id: str) -> None:
    """Say which container the current trace is about: its file is where the trace is kept."""
    trace = _trace.get()
    if trace is not None:
        trace.container = container_id


def traceparent() -> str | None:
    """The current span as a W3C ``traceparent``, to send along with a request to a plugin."""
    now, trace = _span.get(), _trace.get()
    return f"00-{trace.trace_id}-{now.span_id}-01" if now and trace else None


def traced(name: str, *keys: str) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]]:
    """Make each call of an async function a span ``name``; the arguments named in ``keys`` become attributes."""

    def wrap(function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        names = tuple(inspect.signature(function).parameters)

        @functools.wraps(function)
        async def inner(*args: P.args, **kwargs: P.kwargs) -> R:
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            with span(name, **{key: given[key] for key in keys if key in given}):
                return await function(*args, **kwargs)

        return inner

    return wrap
