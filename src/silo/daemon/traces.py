"""Keeps what the spans tell: one file of finished traces per container, and the traces still growing.

The file is ``<data-root>/traces/<container id>.ndjson``, a line per trace.  It outlives its container; the oldest
files go when there are more than ``KEPT_FILES`` of containers that no longer exist, and a file stops growing at
``MAX_BYTES``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import anyio
import msgspec

from silo.resources import leaf
from silo.telemetry import Trace

KEPT_FILES: Final = 200
MAX_BYTES: Final = 4 << 20


class TraceStore:
    """The sink of :mod:`silo.telemetry`.  ``run`` writes in the background; readers see every trace at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: dict[str, Trace] = {}
        self._queue: list[Trace] = []
        self._wanted = anyio.Event()

    def begin(self, trace: Trace) -> None:
        """See :class:`silo.telemetry.Sink`."""
        self._open[trace.trace_id] = trace

    def end(self, trace: Trace) -> None:
        """See :class:`silo.telemetry.Sink`.  A trace that is about no container is dropped."""
        self._open.pop(trace.trace_id, None)
        if trace.container is not None:
            self._queue.append(trace)
            self._wanted.set()

    async def run(self) -> None:
        """Write finished traces until cancelled; what is queued then is still written."""
        self._root.mkdir(parents=True, exist_ok=True)
        try:
            while True:
                await self._wanted.wait()
                self._wanted = anyio.Event()
                await self._flush()
        finally:
            with anyio.CancelScope(shield=True):
                await self._flush()

    async def _flush(self) -> None:
        batch = tuple(self._queue)
        if batch:
            await leaf(self._append, batch)
            del self._queue[: len(batch)]

    def _append(self, traces: Iterable[Trace]) -> None:
        for trace in traces:
            path = self._root / f"{trace.container}.ndjson"
            with path.open("ab") as file:
                if file.tell() < MAX_BYTES:
                    file.write(msgspec.json.encode(trace) + b"\n")

    async def of(self, container_id: str) -> list[Trace]:
        """Every trace of one container, in the order they began; traces still growing included."""
        waiting = [trace for trace in (*self._queue, *self._open.values()) if trace.container == container_id]
        seen = {trace.trace_id for trace in waiting}
        kept = [trace for trace in await leaf(self._read, container_id) if trace.trace_id not in seen]
        return sorted(kept + waiting, key=lambda trace: trace.spans[0].start_ns)

    def _read(self, container_id: str) -> list[Trace]:
        try:
            lines = (self._root / f"{container_id}.ndjson").read_bytes().splitlines()
        except FileNotFoundError:
            return []
        decoder, traces = msgspec.json.Decoder(Trace), []
        for line in lines:
            try:
                traces.append(decoder.decode(line))
            except msgspec.MsgspecError:  # the last line, cut short by a crash
                continue
        return traces

    def known(self) -> list[str]:
        """Ids of the containers that have traces, newest first."""
        waiting = [trace.container for trace in (*self._queue, *self._open.values()) if trace.container is not None]
        return list(dict.fromkeys([*waiting[::-1], *(path.stem for path in self._files())]))

    def _files(self) -> list[Path]:
        return sorted(self._root.glob("*.ndjson"), key=lambda path: path.stat().st_mtime, reverse=True)

    async def prune(self, alive: Iterable[str]) -> None:
        """Remove the oldest files of containers that are gone, beyond the newest ``KEPT_FILES``."""
        keep = set(alive)
        await leaf(self._prune, keep)

    def _prune(self, keep: set[str]) -> None:
        for path in [path for path in self._files() if path.stem not in keep][KEPT_FILES:]:
            path.unlink(missing_ok=True)
