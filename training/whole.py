"""Files that are there as a whole, or not yet."""

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Replace a file's content. If that fails or is cut off, the file is as it was.

    Raises:
        OSError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
