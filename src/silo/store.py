"""Documents by table and key in one SQLite file: WAL, one writer thread, one transaction per verb.

A table is loaded whole at start and then read from memory, so reads never wait; ``write`` returns once the transaction
is durable against a crash of the process (``synchronous=NORMAL`` in WAL mode loses nothing on kill -9).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import anyio
import anyio.to_thread
import msgspec

from silo.errors import Corrupt


class Put(msgspec.Struct, frozen=True):
    """Write ``value`` under ``key``, replacing what is there."""

    table: str
    key: str
    value: bytes


class Delete(msgspec.Struct, frozen=True):
    """Remove ``key``; nothing happens when it is not there."""

    table: str
    key: str


class Append(msgspec.Struct, frozen=True):
    """Add ``value`` at the end of the log ``table`` and keep only its newest ``keep`` entries."""

    table: str
    value: bytes
    keep: int


Step = Put | Delete | Append


class Store:
    """One SQLite file.  Use as an async context manager, or ``open`` and ``close``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._limiter = anyio.CapacityLimiter(1)
        self._db: sqlite3.Connection | None = None

    def open(self) -> Self:
        """Open or create the file.  Raises Corrupt when it is not a database of ours."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("CREATE TABLE IF NOT EXISTS document (tab TEXT, key TEXT, value BLOB, PRIMARY KEY (tab, key))")
            db.execute("CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, tab TEXT, value BLOB)")
            db.execute("CREATE INDEX IF NOT EXISTS log_tab ON log (tab, seq)")
        except sqlite3.DatabaseError as exc:
            db.close()
            raise Corrupt(f"open {self.path}: {exc}") from exc
        self.path.chmod(0o600)
        self._db = db
        return self

    def close(self) -> None:
        """Close the file; what was written is kept."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def load(self, table: str) -> dict[str, bytes]:
        """Every document of ``table`` by key; for start-up, before the event loop serves anybody."""
        return dict(self._conn().execute("SELECT key, value FROM document WHERE tab = ? ORDER BY key", (table,)))

    def tail(self, table: str, limit: int) -> list[bytes]:
        """The newest ``limit`` entries of a log, oldest first."""
        rows = self._conn().execute("SELECT value FROM log WHERE tab = ? ORDER BY seq DESC LIMIT ?", (table, limit))
        return [row[0] for row in rows][::-1]

    async def write(self, *steps: Step) -> None:
        """Do all steps in one transaction, or none."""
        with anyio.CancelScope(shield=True):  # half a verb recorded would be worse than a late answer
            await anyio.to_thread.run_sync(self._write, steps, limiter=self._limiter)

    def write_now(self, *steps: Step) -> None:
        """The same from a thread or at start-up, without an event loop."""
        self._write(steps)

    def _write(self, steps: Sequence[Step]) -> None:
        db = self._conn()
        db.execute("BEGIN IMMEDIATE")
        try:
            for step in steps:
                match step:
                    case Put(table, key, value):
                        db.execute("INSERT OR REPLACE INTO document VALUES (?, ?, ?)", (table, key, value))
                    case Delete(table, key):
                        db.execute("DELETE FROM document WHERE tab = ? AND key = ?", (table, key))
                    case Append(table, value, keep):
                        db.execute("INSERT INTO log (tab, value) VALUES (?, ?)", (table, value))
                        db.execute(
                            "DELETE FROM log WHERE tab = ?1 AND seq <= "
                            "(SELECT seq FROM log WHERE tab = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
                            (table, keep),
                        )
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise

    def _conn(self) -> sqlite3.Connection:
        if self._db is None:
            raise RuntimeError(f"{self.path} is not open")
        return self._db

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


T = TypeVar("T")


def decode_all(kind: type[T], documents: Mapping[str, bytes]) -> dict[str, T]:
    """Decode every document of a table as ``kind``.  Raises Corrupt naming the key that does not fit."""
    decoder = msgspec.json.Decoder(kind)
    result: dict[str, T] = {}
    for key, value in documents.items():
        try:
            result[key] = decoder.decode(value)
        except msgspec.MsgspecError as exc:
            raise Corrupt(f"{kind.__name__} {key}: {exc}") from exc
    return result
