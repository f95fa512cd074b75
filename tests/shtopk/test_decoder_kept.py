"""record_assignments: which tokens of a prompt the vectors above a pooling come from."""

import copy

import pytest
import torch
from decoders import CLOSE, build, marks, padded, tokens

from shtopk.integrations.decoder import pool_decoder, record_assignments, unpooled
from shtopk.integrations.decoders.layout import spread

IDS = tokens()
N = IDS.shape[1]
TWO = torch.tensor([[0] * 2 + [1] * 8 + [0] * 3 + [2] * 7 + [0] * 4, [3] * 10 + [0] * 14])


def vectors_at(model, layer, ids, **more):
    """What a layer gets."""
    got = []
    hook = model.model.layers[layer].input_layernorm.register_forward_pre_hook(lambda _, given: got.append(given[0]))
    with torch.no_grad():
        model(ids, use_cache=False, **more)
    hook.remove()
    return got[0]


@pytest.mark.parametrize("operator", ["successive_halving", "iterative", "hard", "select_and_merge"])
@pytest.mark.parametrize("mask", [None, TWO], ids=["a prompt", "regions"])
def test_the_vectors_of_a_layer_are_what_the_assignment_makes_of_those_before(operator, mask):
    model = pool_decoder(build(), {2: 5}, operator=operator, keep_last=2)
    with record_assignments() as found:
        after = vectors_at(model, 2, IDS, compress_mask=mask)
    before = vectors_at(model, 2, IDS, k=N)
    (kept,) = found
    torch.testing.assert_close(kept.pool(before).masked_fill(~kept.mask.unsqueeze(-1), 0), after, **CLOSE)
    with torch.no_grad():
        places = model(IDS, compress_mask=mask, use_cache=True).past_key_values.layers[2].places
    assert kept.positions.masked_fill(~kept.mask, -1).equal(places)


def test_two_poolings_are_recorded_as_one():
    torch.manual_seed(0)
    model = pool_decoder(build(), {1: 9, 2: 4}, temperature=2.0)
    for layer in model.model.layers[1:2]:  # so that nothing but the poolings changes the vectors
        for projection in (layer.self_attn.o_proj, layer.mlp.down_proj):
            torch.nn.init.zeros_(projection.weight)
    with record_assignments() as found:
        after = vectors_at(model, 2, IDS)
    before = vectors_at(model, 1, IDS, k=N)
    (kept,) = found
    assert kept.mask.shape == (2, 5)
    torch.testing.assert_close(kept.pool(before), after, **CLOSE)
    with torch.no_grad():
        places = model(IDS, use_cache=True).past_key_values.layers[2].places
    assert kept.positions.equal(places)


def test_generation_records_a_prompt_once_and_padding_is_in_no_slot():
    model = pool_decoder(build(), {2: 6})
    ids, mask = (torch.cat(both) for both in zip(padded(IDS[:1, :15], left=9), padded(IDS[1:]), strict=True))
    more = {"max_new_tokens": 3, "do_sample": False}
    with record_assignments() as found:
        both = model.generate(ids, attention_mask=mask, **more)
        model.generate(IDS[:1, :15], **more)
        beams = model.generate(ids, attention_mask=mask, num_beams=2, **more)
    assert both.equal(model.generate(ids, attention_mask=mask, **more)) and len(beams) == 2
    together, alone, by_beam = found
    assert together.mask.shape == (2, 7)
    assert (together.positions[0] - 9).equal(alone.positions[0])
    assert not together.weights[mask == 0].any()
    assert by_beam.positions[::2].equal(together.positions) and by_beam.positions[1::2].equal(together.positions)


def test_a_prompt_that_passes_unchanged_has_each_token_in_a_slot_of_its_own():
    model = pool_decoder(build(), {2: 6})
    with record_assignments() as found, torch.no_grad():
        model(IDS, k=N)
        with unpooled(model):
            model(IDS)
        model(IDS[:, :1])
    (kept,) = found
    assert kept.mask.all() and kept.positions.equal(torch.arange(N).expand(2, -1))
    assert spread(torch.ones(2, N, 1), kept.positions, N).all()


def test_who_does_not_ask_pays_nothing_and_training_learns_the_same():
    model, labels = pool_decoder(build(), {2: 6}).train(), IDS * (1 - marks(IDS, 12)) - 100 * marks(IDS, 12)
    other = copy.deepcopy(model)
    with record_assignments() as found:
        model(IDS, labels=labels).loss.backward()
    other(IDS, labels=labels).loss.backward()
    scorers = [one.model.prompt_pooling["2"].scorer.weight.grad for one in (model, other)]
    assert scorers[0].equal(scorers[1]) and not found[0].weights.requires_grad
