"""Are figures still what they were, although the code has changed? `make confirm PARTS="needle bbc"`.

python benchmarks/confirm.py needle bbc ... [--without "LapSum" "iterative top-k"]

A change that should leave figures alone makes a result out of date all the same. Here a sample of its runs, one of
each way and revision, is made again with the code of today. If every figure of the sample is the same to the last
digit, times and memory left out, each entry of the record's list "measured" gets "confirmed": the revision, the hash
of the files, and how many runs were compared. Then the result counts as up to date. Runs that the record lacks, of a
new row, are made along the way and added. If one differs, it is named, and nothing is changed: the part has to be
measured anew (`make results`), as a part that measures times always has.

--without: ways whose figures are to change, as their settings did. They are not compared. If all others come out the
same, a record of those alone is put where `make results` goes on from (runs/results/PART), so that it makes what is
missing; until then the old figures stay in their place, and count as out of date.
"""

import argparse
import json
import re
import shutil
import signal
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import origin
import renew
from parts import NAMES, Part
from stale import RESULTS, stale

WAY = ("task", "variant", "way", "method", "trained", "trained_as", "teacher")  # fields that name what a run is of
TRAINED_AS = ("trained_as", "teacher")  # those of them that name a training of which several runs are made
MEASURED = re.compile("seconds|_ms$|per_second|mib")  # fields that differ from run to run


def confirm(part: Part, without: Collection[str] = ()) -> str | None:
    """Make a sample of a part's runs again, and write into its records that they are the same. Returns why not."""
    if part.timed:
        return "measures times, which only another measurement can confirm"
    records = {file: json.loads((RESULTS / f"{file}.json").read_text()) for file in part.files}
    samples = {file: sample(record, without) for file, record in records.items()}
    if not all(samples.values()) or any(entry.get("files") is None for record in records.values()
                                        for entry in record.get("measured", [{}])):  # fmt: skip
        return "has no runs of a known revision to be made again"
    runs = [run for record in records.values() for run in record["runs"]]
    if unknown := [way for way in without if not any(is_of(run, [way]) for run in runs)]:
        return f"has no runs of {', '.join(unknown)}"
    folder, begun = renew.STAGING / f"{part.name}-again", renew.STAGING / part.name
    if without and begun.exists():
        return f"is begun in {begun}; make results PARTS={part.name} ends it, or remove it"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with renew.locked(folder.with_suffix(".lock")) as lock:
        if lock is None:
            return "is being confirmed by another process"
        renew.prepare(part, folder)
        for file, record in records.items():
            kept = [run for run in record["runs"] if run not in samples[file]]
            renew.staged(folder, file).write_text(json.dumps(record | {"runs": kept}))
        if failed := renew.run_commands(part, folder, lock):
            return failed
        again = {file: json.loads(renew.staged(folder, file).read_text())["runs"] for file in part.files}
        for file, runs in samples.items():
            if other := next(absent(runs, again[file]), None):
                return f"differs: {file}.json has {shown(other)}, which did not come out again; see {folder}"
        new = {file: list(absent(again[file], record["runs"])) for file, record in records.items()}
        for file, record in records.items():
            write(renew.staged(folder, file), left(record, without), part, len(samples[file]), new[file])
        if without:  # make results goes on from here
            folder.rename(begun)
            return None
        if any(new.values()):  # their tables are all that is left to make
            if failed := renew.run_commands(part, folder, lock):
                return failed
        else:
            for table in renew.tables(folder):  # of the sample: those of before hold
                table.unlink()
        renew.put_in_place(part, folder)
    return None


def sample(record: dict, without: Collection[str] = ()) -> list[dict]:
    """The first run of each way that each entry of "measured" has, but for those without which it goes.

    Where one training makes several runs, all of them: none is made again while another stands in the record.
    """
    found: dict[tuple, dict] = {}
    for number, entry in enumerate(record.get("measured", [])):
        for place in sorted(origin.places(entry.get("runs"))):
            run = record["runs"][place]
            if not is_of(run, without):
                found.setdefault((number, *(run.get(name) for name in WAY)), run)
    trainings = {training(run) for run in found.values()} - {None}
    return [run for run in record.get("runs", []) if run in found.values() or training(run) in trainings]


def training(run: dict) -> tuple | None:
    """What names the training that a run shares with others; None where each run is one of its own."""
    names = [run[name] for name in TRAINED_AS if name in run]
    return (run.get("task"), *names, run.get("seed")) if names else None


def is_of(run: dict, ways: Collection[str]) -> bool:
    """Whether a run is of one of these ways, by any of the fields that name one."""
    return any(run.get(name) in ways for name in WAY)


def left(record: dict, without: Collection[str]) -> dict:
    """The record without the runs of some ways, and its entries with the places of those that are left."""
    kept = [place for place, run in enumerate(record["runs"]) if not is_of(run, without)]
    if len(kept) == len(record["runs"]):
        return record
    entries = []
    for entry in record["measured"]:
        before = origin.places(entry.get("runs"))
        places = {new for new, old in enumerate(kept) if old in before}
        share = len(places) / max(1, len(before))
        minutes = {"minutes": round(entry["minutes"] * share, 3)} if "minutes" in entry else {}
        entries += [entry | minutes | {"runs": origin.ranges(places)}] if places else []
    return record | {"runs": [record["runs"][place] for place in kept], "measured": entries}


def figures(run: dict) -> str:
    """All of a run but what differs each time, to be compared."""
    return json.dumps({name: value for name, value in run.items() if not MEASURED.search(name)}, sort_keys=True)


def absent(runs: list[dict], others: list[dict]) -> Iterator[dict]:
    """Those whose figures no other has."""
    known = {figures(run) for run in others}
    return (run for run in runs if figures(run) not in known)


def shown(run: dict) -> str:
    """A run in one line, without its long lists."""
    return ", ".join(f"{name} {value}" for name, value in run.items() if len(str(value)) < 40)


def write(path: Path, record: dict, part: Part, runs: int, new: list[dict]) -> None:
    """Write a record whose runs are confirmed by a sample of so many, with those that it lacked."""
    here = origin.here(part.script(path.stem), path.stem, part.needs != "gpu")
    for entry in record["measured"]:
        entry["confirmed"] = here | {"runs": runs}
    if new:
        places = range(len(record["runs"]), len(record["runs"]) + len(new))
        record["runs"] += new
        record["measured"].append(here | {"runs": origin.ranges(places)})
    path.write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", metavar="PART", choices=NAMES, help=f"of {', '.join(NAMES)}")
    parser.add_argument("--without", nargs="+", metavar="WAY", default=[], help="whose figures are to change")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # what it started ends, too
    failed = False
    for part in (NAMES[name] for name in arguments.parts):
        reason = confirm(part, arguments.without) if stale(part) else "is up to date"
        failed |= reason not in (None, "is up to date")
        print(f"{part.name}: {reason or 'confirmed'}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
