"""The training of the picture that shows annealing."""

from annealing import SIZE, train


def test_at_first_every_token_has_weight_and_at_the_end_the_marked_ones_have_all():
    found = train(SIZE)
    first, last = found["runs"][0]["weights"], found["runs"][-1]["weights"]
    assert len(found["marked"]) == SIZE.k
    assert min(first) > 0.05
    assert last == [float(token in found["marked"]) for token in range(SIZE.n)]
