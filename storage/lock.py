"""The lock file beside the database: one process per store, and it is the lease."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from bot.errors import StoreError, StoreLocked


class LockFile:
    """An flock on `path`, held until release() or the end of the process. The file
    stays: a file that is removed could be locked twice, once under each inode."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def take(self) -> None:
        """Raises StoreLocked, with the holder's process id in the cause."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"锁文件打不开 lock file {self._path}: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(file)
            os.close(file)
            raise StoreLocked(
                f"另一个进程（{holder}）正在使用这个数据库，请先停止它 "
                f"({self._path} is held by process {holder}; stop it first)"
            ) from error
        self._file = file
        _sign(file)

    def release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _holder(file: int) -> str:
    return os.pread(file, 32, 0).decode("ascii", "replace").strip() or "?"


def _sign(file: int) -> None:
    """The process id helps people only: on a full disk the lock holds without it."""
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    except OSError:
        return
