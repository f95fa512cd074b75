"""JSON lines written as a stream, whole lines at a time. A run that was cut off goes on behind the last whole line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class JsonLines:
    """Write records as lines of JSON, to a file or to a descriptor such as that of standard output.

    Lines wait until `flush`, which writes them all with one call. So whoever reads the file sees whole lines. The file
    is made, emptied or cut at the first `flush`, not before.

    Args:
        target: the path of a file, which must not exist, or the number of an open descriptor.
        overwrite: replace a file that exists.
        resume: go on with what a file holds; half a last line is cut away.
        key: a field that every line has; a file with other lines is refused.

    Attributes:
        done: lines that the file had; 0 without resume.
        last: the last of these lines.
        written: lines written since.

    Raises:
        ValueError: in one line: the file exists, has other lines, or cannot be made there.

    Example:
        >>> lines = JsonLines("out.jsonl", resume=True)  # doctest: +SKIP
        >>> lines.add({"prediction": "sport"})  # doctest: +SKIP
        >>> lines.flush()  # doctest: +SKIP
    """

    def __init__(
        self, target: str | Path | int, *, overwrite: bool = False, resume: bool = False, key: str = "prediction"
    ):
        self.target, self.key, self.done, self.written = target, key, 0, 0
        self.last: dict[str, Any] = {}
        self._descriptor: int | None = target if isinstance(target, int) else None
        self._flags, self._whole = os.O_CREAT | os.O_EXCL, 0
        self._waiting: list[bytes] = []
        if not isinstance(target, int):
            self._look_at(Path(target), overwrite, resume)

    def _look_at(self, path: Path, overwrite: bool, resume: bool) -> None:
        if path.is_dir():
            raise ValueError(f"expected a file to write, got the folder {path}")
        if not path.exists():
            if not path.parent.is_dir():
                raise ValueError(f"expected a folder to write {path.name} in, found none: {path.parent}")
            if not os.access(path.parent, os.W_OK):
                raise ValueError(f"cannot write {path}: the folder does not let you")
            return
        if not os.access(path, os.W_OK):
            raise ValueError(f"cannot write {path}: Permission denied")
        if not path.is_file():  # a device or a pipe, which holds nothing
            self._flags = 0
        elif overwrite:
            self._flags = os.O_TRUNC
        elif resume:
            self._flags = 0
            self._count(path)
        else:
            raise ValueError(f"{path} exists; name another file, or give --overwrite true or --resume true")

    def _count(self, path: Path) -> None:
        """Count the whole lines of a file, and refuse a file with other lines."""
        line = b""
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    self.done += 1
                    self._whole += len(line)
                    last = line
        half = line[: 2 if line[-1:] != b"\n" else 0]
        try:
            self.last = json.loads(last) if self.done else {self.key: None}
        except ValueError:
            self.last = {}
        if not isinstance(self.last, dict) or self.key not in self.last or not b'{"'.startswith(half):
            raise ValueError(f"cannot go on with {path}: its last line is no object with a {self.key!r}; "
                             "is it another file than was meant?")  # fmt: skip

    def add(self, record: dict[str, Any]) -> None:
        """Let a record wait for `flush`. Raises ValueError for a number that is not finite, which JSON lacks."""
        try:
            line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError:  # a lone surrogate
            line = json.dumps(record, allow_nan=False).encode()
        self._waiting.append(line + b"\n")

    def flush(self) -> None:
        """Write the lines that wait. After an OSError the file may end in half a line."""
        if self._descriptor is None:
            self._descriptor = self._open(Path(str(self.target)))
        content = memoryview(b"".join(self._waiting))
        while content:
            content = content[os.write(self._descriptor, content) :]
        self.written += len(self._waiting)
        self._waiting = []

    def _open(self, path: Path) -> int:
        descriptor = os.open(path, os.O_WRONLY | self._flags, 0o666)
        if not self._flags and path.is_file():
            os.ftruncate(descriptor, self._whole)
            os.lseek(descriptor, self._whole, os.SEEK_SET)
        return descriptor

    def close(self) -> None:
        """Close the file, but not a descriptor that was given. Lines that still wait are dropped."""
        if self._descriptor is not None and self._descriptor != self.target:
            os.close(self._descriptor)
        self._descriptor = None
