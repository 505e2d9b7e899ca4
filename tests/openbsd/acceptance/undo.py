"""A journal of the changes made to the machine, from which they can be undone.

Each change is written to the disk before it is made. So if a run is killed, the next
one undoes its changes. A file is copied beside itself before it is changed, so that
restoring it takes no space.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SUFFIX = ".scw-accept"


class Journal:
    """The changes, in order."""

    def __init__(self, file: Path, undo: dict[str, Callable[[str], None]]) -> None:
        """Take the journal's file, and how each kind of change is undone."""
        self._file = file
        self._undo = {"file": _put_back, "setting": _put_back, **undo}

    def note(self, kind: str, what: str) -> None:
        """Note a change that is about to be made, once."""
        entries = self._entries()
        if [kind, what] not in entries:
            self._write([*entries, [kind, what]])

    def keep(self, path: str, kind: str = "file") -> None:
        """Note that a file is about to be changed, and keep a copy of it."""
        if [kind, path] in self._entries():
            return
        original, kept = Path(path), Path(path + SUFFIX)
        kept.unlink(missing_ok=True)
        if original.exists():
            try:
                shutil.copy2(original, kept)
                status = original.stat()
                os.chown(kept, status.st_uid, status.st_gid)
            except OSError:
                kept.unlink(missing_ok=True)
                raise
        self.note(kind, path)

    def pending(self) -> bool:
        """Tell whether there is anything to undo."""
        return bool(self._entries())

    def undo(self, kind: str | None = None) -> list[str]:
        """Undo all changes, or those of one kind, the last one first.

        Returns what could not be undone, which stays noted.
        """
        failed = []
        for entry in reversed(self._entries()):
            if kind is not None and entry[0] != kind:
                continue
            try:
                self._undo[entry[0]](entry[1])
            except Exception as error:  # noqa: BLE001 - the others are undone all the same
                failed.append(f"{entry[0]} {entry[1]}: {error}")
            else:
                self._write([each for each in self._entries() if each != entry])
        return failed

    def _entries(self) -> list[list[str]]:
        try:
            entries = json.loads(self._file.read_text())
        except FileNotFoundError:
            return []
        assert isinstance(entries, list)
        return entries

    def _write(self, entries: list[list[str]]) -> None:
        """Rewrite the journal; remove it if it is empty, which takes no space."""
        if not entries:
            self._file.unlink(missing_ok=True)
            return
        new = self._file.with_suffix(".new")
        with new.open("w") as file:
            json.dump(entries, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._file)


def _put_back(path: str) -> None:
    """Restore a file from its copy; without a copy, there was no file."""
    kept = Path(path + SUFFIX)
    if kept.exists():
        kept.replace(path)
    else:
        Path(path).unlink(missing_ok=True)
