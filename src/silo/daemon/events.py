"""What happened to containers, images and networks, as ``docker events`` shows it: in order, the newest kept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

KEPT: Final = 256
"""Events a late listener can still ask for (dockerd keeps as many)."""
BACKLOG: Final = 4096


class EventBus:
    """Takes events without waiting; every listener gets each one in the order they were published."""

    def __init__(self) -> None:
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._listeners: list[MemoryObjectSendStream[dict[str, Any]]] = []
        self._last = 0

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    def publish(self, kind: str, action: str, actor: str, attributes: Mapping[str, str]) -> None:
        """Tell that ``action`` happened to the object ``actor`` of type ``kind``."""
        self._last = max(self._last + 1, time.time_ns())  # no two events share a time: clients resume by it
        event: dict[str, Any] = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": actor, "Attributes": dict(attributes)},
            "scope": "local",
            "time": self._last // 1_000_000_000,
            "timeNano": self._last,
        }
        if kind in {"container", "image"}:
            event["status"], event["id"] = action, actor
        if kind == "container":
            event["from"] = attributes.get("image", "")
        self._kept.append(event)
        for listener in tuple(self._listeners):
            try:
                listener.send_nowait(event)
            except (anyio.WouldBlock, anyio.BrokenResourceError):
                self._listeners.remove(listener)
                listener.close()

    async def listen(self, since: int | None, until: int | None) -> AsyncGenerator[dict[str, Any]]:
        """Kept events from ``since`` on (none without it), then live ones up to ``until`` (both ns since the epoch)."""
        with self._subscribed() as stream:
            past = [event for event in self._kept if since is not None and event["timeNano"] >= since]
            for event in past:
                if until is None or event["timeNano"] <= until:
                    yield event
            with anyio.move_on_after(float("inf") if until is None else max(0.0, (until - time.time_ns()) / 1e9)):
                async for event in stream:
                    yield event

    @contextmanager
    def _subscribed(self) -> Any:
        send, receive = anyio.create_memory_object_stream[dict[str, Any]](BACKLOG)
        self._listeners.append(send)
        stream: MemoryObjectReceiveStream[dict[str, Any]] = receive
        try:
            yield stream
        finally:
            if send in self._listeners:
                self._listeners.remove(send)
            send.close()
            receive.close()


def matches(event: Mapping[str, Any], filters: Mapping[str, list[str]]) -> bool:
    """Whether the event passes dockerd's filters: any value of a key, every key."""
    attributes = event["Actor"]["Attributes"]
    actor = event["Actor"]["ID"]
    for key, wanted in filters.items():
        match key:
            case "type":
                passed = event["Type"] in wanted
            case "event":
                passed = any(event["Action"] == one or event["Action"].startswith(f"{one}:") for one in wanted)
            case "scope":
                passed = event["scope"] in wanted
            case "label":
                passed = all(_label(attributes, one) for one in wanted)
            case _:
                names = {actor, attributes.get("name", ""), attributes.get("image", "") if key == "image" else ""}
                passed = event["Type"] == key or key == "image"
                passed = passed and any(one in names or actor.startswith(one) for one in wanted)
        if not passed:
            return False
    return True


def _label(attributes: Mapping[str, str], wanted: str) -> bool:
    key, sep, value = wanted.partition("=")
    return key in attributes and (not sep or attributes[key] == value)
