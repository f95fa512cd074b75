"""The rows of the tables have the settings that tuning found best."""

import json

import pytest
import tune
from record import RESULTS
from retrieval_ways import WAYS, Way, candidates
from rivals import RIVALS
from variants import NEEDLE_ONLY, RIVAL_ROWS, VARIANTS, Variant

from shtopk import TopKPooling

TUNED = [
    variant
    for variant in VARIANTS + NEEDLE_ONLY + RIVAL_ROWS
    if variant.name in (*tune.GRID, tune.ATTENTION.name, *(row.name for row in RIVAL_ROWS))
    and variant.kind not in tune.UNTAUGHT
]


@pytest.mark.parametrize("variant", TUNED, ids=lambda variant: variant.name)
def test_a_row_of_needle_has_the_settings_that_tuning_found_best(variant: Variant):
    runs = json.loads((RESULTS / "tune-needle.json").read_text())["runs"]
    tried = [{key: run[key] for key in tune.KEYS} for run in runs if run["method"] == variant.name]
    best = min(tried, key=lambda setting: tune.rank(tune.score(setting, runs)))

    pooling = RIVALS.get(variant.kind, TopKPooling)(8, 2, **variant.pooling)
    assert variant.scorer_learning_rate == best["learning_rate"]
    if best["end"] is not None:
        assert pooling.temperature == best["end"]
        assert (pooling.initial_temperature or pooling.temperature) == best["start"]


@pytest.mark.parametrize("way", [way for way in WAYS if way.learning_rate is not None], ids=lambda way: way.name)
def test_a_row_of_retrieval_has_the_settings_that_tuning_found_best(way: Way):
    runs = json.loads((RESULTS / "retrieval-tuning.json").read_text())["runs"]

    def mrr(candidate: Way) -> float:
        return sum(run["mrr"] for run in runs if run["way"] == candidate.name)

    best = max(candidates(way.name), key=mrr)
    assert (way.options, way.learning_rate, way.module) == (best.options, best.learning_rate, best.module)
