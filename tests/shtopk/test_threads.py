"""Work in parallel: on the threads of torch's OpenMP or, without it, on our own."""

import threading

import pytest

from shtopk.backends import threads


@pytest.fixture(params=["openmp", "own"])
def pool(request, monkeypatch):
    if request.param == "own":
        monkeypatch.setattr(threads, "_run", None)
    elif threads._run is None:
        pytest.skip("torch has no OpenMP here whose threads could be used")
    return request.param


def test_every_part_is_done_once(pool):
    assert sorted(threads.parallel_map(lambda begin, end: end - begin, [(0, 1), (1, 3), (3, 6)])) == [1, 2, 3]


def test_parts_are_done_at_the_same_time(pool):
    both = threading.Barrier(2)
    assert len(set(threads.parallel_map(lambda part: both.wait(timeout=20), [(0,), (1,)]))) == 2


def test_a_failure_is_raised(pool):
    def fail(part):
        raise ValueError(f"part {part}")

    with pytest.raises(ValueError, match="part"):
        threads.parallel_map(fail, [(0,), (1,)])


def test_an_interruption_of_the_work_is_raised(pool):
    def interrupted(part):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        threads.parallel_map(interrupted, [(0,), (1,)])
