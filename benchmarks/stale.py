"""Which results are out of date, and why: `make stale`.

python benchmarks/stale.py [--short]

A result is up to date if all that its figures depend on is as it was when they were measured (reached.py) or confirmed
(confirm.py), and the versions of torch and what else they depend on, too. A line for each that is not: why, and about
how long it takes to measure it anew (`make results`). --short: only how many there are, if there are any.
"""

import argparse
import json
from functools import cache
from pathlib import Path

import origin
from parts import PARTS, Part
from sources import ROOT

RESULTS = ROOT / "benchmarks" / "results"
NAMED = 3  # changed files of a line


def why(part: Part, file: str, path: Path | None = None) -> str | None:
    """Why a result is out of date, in a few words; None if it is not. path: where it lies, if not among the others."""
    path = path or RESULTS / f"{file}.json"
    if not path.exists():
        return "never measured"
    measured = json.loads(path.read_text()).get("measured", [])
    if not measured or any(entry.get("files") is None for entry in measured):
        return "no revision recorded" if len(measured) < 2 else "no revision recorded for some of it"
    script, result, cpu = part.script(file), path.stem, part.needs != "gpu"
    for entry in (entry.get("confirmed", entry) for entry in measured):
        if found := _other_packages(entry, cpu) or _other_files(entry, script, result, cpu):
            return found
    return None


def _other_packages(entry: dict, cpu: bool) -> str | None:
    """A GPU's machine brings its own packages, so they may be others than here."""
    then_now = {name: (entry[name], origin.version(name)) for name in origin.PACKAGES if cpu and entry.get(name)}
    other = [f"{name} {then}, now {now}" for name, (then, now) in then_now.items() if _public(then) != _public(now)]
    return ", ".join(other) or None


def _public(version: str | None) -> str:
    """Without where it was built for, as +cpu."""
    return (version or "none").split("+")[0]


@cache
def _hashes(script: str, result: str, cpu: bool, revision: str | None = None) -> dict[str, str] | None:
    found = origin.reach(script, result, cpu, revision)
    return found and found.hashes()


def _other_files(entry: dict, script: str, result: str, cpu: bool) -> str | None:
    now = _hashes(script, result, cpu)
    if now is None:
        return f"its script, {script}.py, is not there"
    if entry["files"] == origin.digest(now):
        return None
    revision, clean = entry["revision"], entry["clean"]
    then = _hashes(script, result, cpu, revision) if revision else None
    if then is None:
        return f"files changed since {revision or 'an unknown revision'}, which is not here"
    changed = sorted(path for path in then.keys() | now.keys() if then.get(path) != now.get(path))
    if not changed:  # measured by files that no revision has; or they are found in another way today
        return None if clean else f"files differ from those it was measured with, {revision} and changes"
    more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
    return f"changed since {revision}: {', '.join(changed[:NAMED])}{more}"


def minutes(part: Part) -> float:
    """How long it took, as the records say; or about how long it takes."""
    paths = [RESULTS / f"{file}.json" for file in part.files]
    found = [json.loads(path.read_text()).get("measured", []) if path.exists() else [] for path in paths]
    known = [entry.get("minutes") for measured in found for entry in measured]
    return sum(known) if all(found) and None not in known else part.minutes


def stale(part: Part) -> dict[str, str]:
    """The files of a part that are out of date, and why."""
    found = {file: why(part, file) for file in part.files}
    return {file: reason for file, reason in found.items() if reason}


def in_words(minutes: float) -> str:
    """
    >>> in_words(4), in_words(150)
    ('4 min', '2 h 30 min')
    """
    hours, rest = divmod(max(1, round(minutes)), 60)
    return f"{hours} h {rest:02} min" if hours else f"{rest} min"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="one line")
    short = parser.parse_args().short
    found = {part: reasons for part in PARTS if (reasons := stale(part))}
    files = {file for reasons in found.values() for file in reasons}
    total = len({file for part in PARTS for file in part.files})
    if short:
        if files:
            print(f"{len(files)} of {total} results are out of date; make stale names them")
        return
    for part, reasons in found.items():
        for file, reason in reasons.items():
            print(f"{file}.json: {reason}; about {in_words(minutes(part))}: make results PARTS={part.name}")
    if files:
        time = in_words(sum(minutes(part) for part in found))
        print(f"{len(files)} of {total} results are out of date; make results takes about {time}")
    else:
        print(f"all {total} results are up to date")


if __name__ == "__main__":
    main()
