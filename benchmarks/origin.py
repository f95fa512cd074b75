"""Where the figures of a record come from: the revision of the code, and the hash of what they depend on.

A record has a list "measured" with an entry for each origin that its figures have: `revision` (null without git),
`clean` (whether the code was as that revision has it), `files` (a hash of all that the figures depend on, see
reached.py), the versions of packages, `minutes`, and by the name of each list of the record the places of its items,
such as "0-11, 14". A revision of null with nothing beside it stands for figures that are older than this list.

Without torch, as gpu.py needs it.
"""

import hashlib
import json
import re
import subprocess
import time
from functools import cache
from importlib import metadata
from itertools import pairwise
from typing import Any

import parts
from reached import KERNELS, NATIVE, Reach
from sources import FOLDERS, ROOT, Code

PACKAGES = ("torch", "transformers", "sentence_transformers")  # whose versions are kept, where figures depend on them
UNKNOWN = {"revision": None}
_last = [time.monotonic()]  # when this process last kept figures


@cache
def revision() -> tuple[str | None, bool | None]:
    """The git revision as this process begins, and whether the code is as it has it; (None, None) without git."""
    try:
        if not _git("ls-files", "benchmarks/origin.py"):  # a copy inside of another repository
            return None, None
        changed = _git("status", "--porcelain", "--", *FOLDERS, ":(exclude)benchmarks/results")
        return _git("rev-parse", "--short=12", "HEAD"), not changed
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@cache
def code() -> Code:
    """The code as this process begins."""
    return Code.here()


@cache
def reach(script: str, result: str, cpu: bool, revision: str | None = None) -> Reach | None:
    """What the figures of a result depend on, here or in a revision; None where that or the script is not."""
    where = code() if revision is None else _of_revision(revision)
    if where is None or script not in where.paths:
        return None
    part = parts.part_of(result)
    other_backend = KERNELS if cpu else NATIVE
    if part is None:
        return Reach(where, script, without=[other_backend])
    return Reach(where, script, without=[other_backend, *part.without], tasks=part.tasks, words=part.words)


_of_revision = cache(Code.of_revision)


def digest(hashes: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(hashes.items())).encode()).hexdigest()[:12]


@cache
def here(script: str, result: str, cpu: bool) -> dict[str, Any]:
    """The origin of figures that this process measures."""
    now, clean = revision()
    found = reach(script, result, cpu)
    origin: dict[str, Any] = {"revision": now, "clean": clean, "files": digest(found.hashes()) if found else None}
    return origin | {name: version(name) for name in PACKAGES if found is None or name in found.outside}


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def measured(record: dict, before: dict, origin: dict[str, Any]) -> list[dict]:
    """The list "measured" of a record that this process is about to keep.

    Args:
        record: with that list as it was when the record was read; without one if it is older than such lists.
        before: the record as it stands on the disk, {} if it does not.
        origin: of what is new.
    """
    known = record.get("measured")
    if known == []:
        before = {}  # all is new
    elif known is None and before:
        known = [UNKNOWN | {name: ranges(range(len(items))) for name, items in _lists(before).items()}]
    if _facts(record) == _facts(before):
        return record.get("measured", [])
    entries = [dict(entry) for entry in known or []]
    of_lists = [entry for entry in entries if entry.keys() & _lists(before).keys()]
    mine = next((entry for entry in entries if entry.items() >= origin.items()), None)
    if mine is None:
        entries.append(mine := dict(origin))
    old = _lists(before)
    for name, items in _lists(record).items():
        for place, item in enumerate(items):
            was = old[name][place] if place < len(old.get(name, [])) else None
            if was == item:
                continue
            for entry in entries:
                if entry is mine or was is None or not was.items() <= item.items():  # replaced, not completed
                    its = places(entry.get(name)) - {place} | ({place} if entry is mine else set())
                    entry |= {name: ranges(its)}
    now = time.monotonic()
    mine["minutes"] = round(mine.get("minutes", 0) + (now - _last[0]) / 60, 3)
    _last[0] = now
    left = [{name: value for name, value in entry.items() if value != ""} for entry in entries]
    return [entry for entry, was in zip(left, entries, strict=True)
            if was is mine or was not in of_lists or entry.keys() & _lists(record).keys()]  # fmt: skip


def _facts(record: dict) -> dict[str, str]:
    """All of a record but where it comes from, as JSON, in which nan is nan."""
    return {name: json.dumps(value) for name, value in record.items() if name not in ("measured", "command")}


def _lists(record: dict) -> dict[str, list[dict[str, str]]]:
    """The lists of a record whose items are figures."""
    return {
        name: [{key: json.dumps(value) for key, value in item.items()} for item in items]
        for name, items in record.items()
        if name != "measured" and isinstance(items, list) and items and all(isinstance(one, dict) for one in items)
    }


def ranges(places: Any) -> str:
    """
    >>> ranges({0, 1, 2, 5})
    '0-2, 5'
    """
    if not (places := sorted(places)):
        return ""
    cuts = [i + 1 for i, (one, other) in enumerate(pairwise(places)) if other != one + 1]
    runs = [places[start:end] for start, end in zip([0, *cuts], [*cuts, len(places)], strict=True)]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def places(listed: str | None) -> set[int]:
    """
    >>> places("0-2, 5") == {0, 1, 2, 5}
    True
    """
    found = re.findall(r"(\d+)(?:-(\d+))?", listed or "")
    return {place for first, last in found for place in range(int(first), int(last or first) + 1)}
