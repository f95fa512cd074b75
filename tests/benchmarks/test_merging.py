"""What select and merge costs: every way is timed, and the table divides the right times."""

import merging
from merging import HARD, MERGE, TOURNAMENT, WARD


def test_every_way_is_timed_ward_only_where_its_distances_fit(monkeypatch):
    monkeypatch.setattr(merging, "TURNS", 2)
    monkeypatch.setattr(merging, "CALLS", 0.0)
    found = merging.measure(64, 4, 8)
    assert set(found) == {MERGE, TOURNAMENT, HARD, WARD} and all(seconds > 0 for seconds in found.values())
    monkeypatch.setattr(merging, "MOST_FOR_WARD", 63)
    assert set(merging.measure(64, 4, 8)) == {MERGE, TOURNAMENT, HARD}


def test_the_table_divides_by_the_others_and_ward_by_ours():
    taken = {MERGE: 0.002, TOURNAMENT: 0.001, HARD: 0.0005, WARD: 0.1}
    runs = [{"n": 2048, "k": 32, "d": 384, "seconds": taken}]
    record = {"runs": runs, "command": "python x.py", "device": "a CPU", "torch": "2"}
    assert merging.table(record).splitlines()[2] == "| 2,048 | 32 | 2.00 | 2 | 4 | 50 |"
    assert merging.ratio(record, 2048, 32, WARD, MERGE) == 50
