"""Files in the run directory, written completely or not at all.

A reader sees the old file or the new one, never a part. The directory is opened
once, and each file is created under a new name and then renamed. So symbolic links
or files that another user planted in it are neither followed nor written to.
"""

from __future__ import annotations

import os
import stat
import time

from .errors import StoreError

RUN_DIRECTORY = "/var/run/scw_signal"
STATE_FILE = "state"
METADATA_JSON = "metadata.json"
METADATA_FLAT = "metadata.flat"
READ_LIMIT = 64 * 1024 * 1024  # bytes


class Store:
    """The run directory, open for writing; created if its parent exists."""

    def __init__(
        self, directory: str, mode: int = 0o755, *, durable: bool = False
    ) -> None:
        """Open `directory`, or create it with `mode`; raises StoreError.

        `durable` makes changes survive a power loss.
        """
        self.directory = directory
        self.created = False
        self._durable = durable
        try:
            try:
                with _Umask():
                    os.mkdir(directory, mode)  # noqa: PTH102 - pathlib is slow to import
                self.created = True
            except FileExistsError:
                pass
            self._descriptor = os.open(
                directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            )
        except (OSError, ValueError) as error:
            raise self._failed("", error) from None

    def chown(self, uid: int, gid: int) -> None:
        """Give the directory to a user, but only if it is new or RUN_DIRECTORY.

        Raises OSError.
        """
        if self.created or self.directory == RUN_DIRECTORY:
            os.fchown(self._descriptor, uid, gid)

    def close(self) -> None:
        """Close the directory."""
        os.close(self._descriptor)

    def write(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Write `data` to the file `name`; raises StoreError."""
        new = f".{name}.{os.getpid()}"
        try:
            self._create(new, data, mode)
            os.rename(
                new, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor
            )
            self._sync()
        except OSError as error:
            raise self._failed(f"/{name}", error) from None
        finally:
            self._remove(new)

    def remove(self, name: str) -> None:
        """Remove a file, if there is one; raises StoreError."""
        try:
            os.unlink(name, dir_fd=self._descriptor)
            self._sync()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._failed(f"/{name}", error) from None

    def _sync(self) -> None:
        if self._durable:
            os.fsync(self._descriptor)  # a rename changes the directory: fsync(2)

    def _create(self, name: str, data: bytes, mode: int) -> None:
        self._remove(name)  # a killed process with our process id may have left it
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _Umask():
            descriptor = os.open(name, flags, mode, dir_fd=self._descriptor)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _remove(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._descriptor)
        except OSError:
            pass

    def _failed(self, name: str, error: Exception) -> StoreError:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        return StoreError(f"{self.directory}{name}: {reason}")


class _Umask:
    """A umask of 0, so that files get the modes given here.

    chmod(2) afterwards would need the promise fattr.
    """

    def __enter__(self) -> None:
        self._before = os.umask(0)

    def __exit__(self, *_: object) -> None:
        os.umask(self._before)


def read(directory: str, name: str, max_age: float | None = None) -> str | None:
    """Return a file of the run directory as text, or None if there is none.

    Also returns None if it is not a regular file or is larger than READ_LIMIT, and if
    it was written more than `max_age` seconds ago or in the future (the clock may have
    been wrong at boot).
    """
    try:
        # O_NONBLOCK: opening a FIFO must not block.
        descriptor = os.open(
            f"{directory}/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        )
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size > READ_LIMIT:
                return None
            # The only use of the wall clock: another process wrote the file.
            if max_age is not None and not 0 <= time.time() - found.st_mtime <= max_age:
                return None
            data = b""
            while chunk := os.read(descriptor, 1 << 20):
                data += chunk
        finally:
            os.close(descriptor)
        return data.decode()
    except (OSError, ValueError):
        return None
