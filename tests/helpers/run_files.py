"""What a run wrote, to be compared with what another wrote."""

import json


def rows_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def timeless(figures: dict) -> dict:
    """Without times, memory, and the words that it was started with."""
    words = ("peak_memory_gib", "command", "arguments")
    times = ("seconds", "_per_second", "runtime")
    return {name: value for name, value in figures.items() if name not in words and not name.endswith(times)}


def course(run) -> list[dict]:
    """Of every update and evaluation."""
    return [timeless(row) for row in rows_of(run / "history.jsonl")]


def results(run) -> dict:
    return timeless(json.loads((run / "all_results.json").read_text()))
