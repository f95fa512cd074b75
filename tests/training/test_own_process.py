"""Work in a process of its own."""

import atexit
from pathlib import Path

from shtopk.training.comparison import in_its_own_process


def work(path: Path) -> int:
    atexit.register(path.touch)
    return 3


def test_a_process_that_has_answered_ends_by_itself(tmp_path):
    for number in range(3):
        assert in_its_own_process(work, tmp_path / str(number)) == 3
        assert (tmp_path / str(number)).exists()
