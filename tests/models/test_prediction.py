"""`predict` answers each text as if it were alone, in order, as a stream."""

import random
from itertools import count, islice

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import BART, BERT, LLAMA, SPECIAL, tiny_tokenizer
from tokenizers import processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from shtopk.integrations.decoder import pool_decoder, record_assignments
from shtopk.integrations.encoder import pool_encoder
from shtopk.models import (
    ANSWER_NOW,
    TopKPoolingConfig,
    TopKPoolingForConditionalGeneration,
    TopKPoolingForSequenceClassification,
    TopKPoolingSeq2SeqConfig,
    predict,
    prediction,
)
from shtopk.show.answer import answer_and_page
from shtopk.show.describe import slots_of

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def texts(number=40, longest=50, seed=0):
    draw = random.Random(seed)
    return [" ".join(draw.choices(LETTERS, k=draw.randint(0, longest))) for _ in range(number)]


def ours(**fields):
    torch.manual_seed(0)
    backbone = BertConfig(**BERT, initializer_range=0.3)
    config = TopKPoolingConfig(backbone=backbone, **{"k": 4, "num_labels": 3, **fields})
    return TopKPoolingForSequenceClassification(config).eval()


def bert():
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**BERT, initializer_range=0.3, num_labels=3)).eval()


def summarizer(**fields):
    torch.manual_seed(0)
    config = TopKPoolingSeq2SeqConfig(backbone=BartConfig(**BART | {"init_std": 0.5}), k=4, **SPECIAL, **fields)
    model = TopKPoolingForConditionalGeneration(config).eval()
    model.set_generation(max_new_tokens=6)
    return model


def bart():
    torch.manual_seed(0)
    model = BartForConditionalGeneration(BartConfig(**BART | {"init_std": 0.5, "encoder_layers": 2})).eval()
    model.generation_config.update(max_new_tokens=6)
    return model


def adapter():
    torch.manual_seed(1)
    model = get_peft_model(ours(), LoraConfig(target_modules=["query"], init_lora_weights=False))
    return model.eval()


MODELS = {
    "ours": ours,
    "a share of the tokens": lambda: ours(k=0.3),
    "two steps": lambda: ours(window=9, window_k=3, protected=[]),
    "dense": lambda: ours(operator="iterative"),
    "without pooling": bert,
    "pooled between layers": lambda: pool_encoder(bert(), {1: 4}),
    "adapter": adapter,
}
POOLED = [name for name in MODELS if name != "without pooling"]


@pytest.mark.parametrize("name", MODELS)
def test_an_answer_is_that_of_its_text_alone_whatever_stands_beside_it(name):
    model, tokenizer, documents = MODELS[name](), tiny_tokenizer(), texts()
    found = list(predict(model, tokenizer, documents, batch_size=5))
    assert len(found) == len(documents)
    assert len({round(answer.probability, 3) for answer in found}) > 10
    for text, answer in zip(documents, found, strict=True):
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            expected = model(**inputs).logits[0].softmax(-1)
        assert answer.probability == pytest.approx(expected.max().item(), abs=1e-4)
        assert answer.label == model.config.id2label[expected.argmax().item()]
        assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-4)
        assert answer.prediction == answer.label
        assert answer.kept is None


@pytest.mark.parametrize("name", ["ours", "two steps", "without pooling", "adapter"])
def test_token_types_reach_the_model(name):
    model, tokenizer = MODELS[name](), tiny_tokenizer(segment=1)
    (found,) = predict(model, tokenizer, ["a b goal c"])
    with torch.no_grad():
        expected, other = (model(**one(["a b goal c"], return_tensors="pt")).logits[0].softmax(-1).max().item()
                           for one in (tokenizer, tiny_tokenizer()))  # fmt: skip
    assert found.probability == pytest.approx(expected, abs=1e-6)
    assert found.probability != pytest.approx(other, abs=1e-5)
    assert f"{100 * found.probability:.1f}" in answer_and_page(model, tokenizer, "a b goal c")[0]


@pytest.mark.parametrize("make", [summarizer, bart, lambda: pool_encoder(bart(), {1: 4})])
def test_a_summary_is_what_the_model_generates_of_its_text_alone(make):
    model, tokenizer, documents = make(), tiny_tokenizer(), texts(12)
    found = [answer.summary for answer in predict(model, tokenizer, documents, batch_size=5)]
    assert len(set(found)) > 1
    for text, summary in zip(documents, found, strict=True):
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            (expected,) = tokenizer.batch_decode(model.generate(**inputs), skip_special_tokens=True)
        assert summary == expected.strip()


def test_texts_are_read_ahead_by_a_batch_at_first_and_then_by_four_times_as_many_each_time():
    read = []

    def endless():
        for i in count():
            read.append(i)
            yield "a b c"

    answers = predict(ours(), tiny_tokenizer(), endless(), batch_size=2, block=8)
    assert not read
    seen = []
    for _ in islice(answers, 24):
        seen.append(len(read))
    assert seen == [2] * 2 + [10] * 8 + [18] * 8 + [26] * 6


def test_the_answers_to_the_texts_so_far_may_be_asked_for():
    steps = []

    def slow():
        for step in ("a", "b", ANSWER_NOW, ANSWER_NOW, "c"):
            steps.append(step)
            yield step

    answers = predict(ours(), tiny_tokenizer(), slow(), batch_size=16)
    first = [next(answers), next(answers)]
    assert steps == ["a", "b", ANSWER_NOW]
    assert len([*first, *answers]) == 3


@pytest.mark.parametrize("none", [[], [ANSWER_NOW], iter(())])
def test_no_texts_have_no_answers(none):
    assert list(predict(ours(), tiny_tokenizer(), none)) == []


def test_a_missing_text_is_refused_as_the_answers_after_it_would_be_those_of_others():
    with pytest.raises(ValueError, match="expected texts, or tuples of two texts, got NoneType"):
        list(predict(ours(), tiny_tokenizer(), ["a", None, "b"]))


class Watched(torch.nn.Module):
    """A model that notes the shapes of its batches."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config, self.encoder, self.shapes = model, model.config, model.encoder, []
        self.device, self.can_generate = model.device, model.can_generate

    def forward(self, input_ids, **inputs):
        self.shapes.append(tuple(input_ids.shape))
        return self.model(input_ids=input_ids, **inputs)


def test_texts_of_like_length_go_through_the_model_together():
    documents = ["a " * (1 if i % 2 else 40) for i in range(64)]
    padded = {}
    for block in (8, 64):
        model = Watched(ours())
        list(predict(model, tiny_tokenizer(), documents, batch_size=8, block=block))
        padded[block] = sum(rows * tokens for rows, tokens in model.shapes)
    real = 32 * (3 + 42)
    assert padded[8] > 1.5 * real
    assert padded[64] == pytest.approx(real, rel=0.35)  # but for the first block, of one batch


def test_long_texts_go_through_the_model_in_smaller_batches(monkeypatch):
    monkeypatch.setattr(prediction, "MOST_TOKENS", 100)
    model = Watched(ours())
    documents = ["a " * 300, *["a " * 30] * 6, *["a"] * 5]
    assert len(list(predict(model, tiny_tokenizer(), documents, batch_size=16))) == len(documents)
    assert model.shapes == [(1, 302), (3, 32), (3, 32), (5, 3)]


def test_a_block_ends_early_where_texts_are_long(monkeypatch):
    monkeypatch.setattr(prediction, "MOST_CHARACTERS", 10)
    assert [len(block) for block in prediction._blocks(["abcde"] * 5, 100, 100)] == [2, 2, 1]


def test_several_labels_hold_or_none_does():
    model = ours(problem_type="multi_label_classification", id2label={0: "x", 1: "y", 2: "z"})
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([1.0, -1.0, 3.0]))
    (answer,) = predict(model, tiny_tokenizer(), ["a"])
    assert answer.labels == answer.prediction == ["z", "x"]
    assert answer.probabilities == pytest.approx({"x": 0.7311, "y": 0.2689, "z": 0.9526}, abs=1e-4)
    assert answer.label is None
    with torch.no_grad():
        model.classifier.bias.fill_(-1)
    (answer,) = predict(model, tiny_tokenizer(), ["a"])
    assert answer.labels == answer.prediction == []


def test_regression_answers_with_its_number():
    model = ours(num_labels=1)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.fill_(3.5)
    (answer,) = predict(model, tiny_tokenizer(), ["a"])
    assert answer.value == answer.prediction == 3.5
    assert answer.probability is answer.probabilities is None


@pytest.mark.parametrize("name", POOLED)
def test_the_kept_tokens_are_those_that_lead_the_slots_of_the_text_alone(name):
    model, tokenizer, documents = MODELS[name](), tiny_tokenizer(), texts(12)
    for text, answer in zip(documents, predict(model, tokenizer, documents, batch_size=5, kept=True), strict=True):
        encoded = tokenizer(text, return_tensors="pt", return_offsets_mapping=True, return_token_type_ids=False)
        spans = encoded.pop("offset_mapping")[0].tolist()
        with torch.no_grad():
            assignment = model(**encoded).assignment
        slots = slots_of(assignment, None, smallest_weight=-1)
        assert [(token.start, token.end) for token in answer.kept] == [tuple(spans[slot.position]) for slot in slots]
        weights = [dict(slot.tokens)[slot.position] for slot in slots]
        assert [token.weight for token in answer.kept] == pytest.approx(weights, abs=1e-4)
        for token in answer.kept:
            assert token.token == text[token.start : token.end] or token.token in ("[CLS]", "[SEP]")


@pytest.mark.parametrize("make", [summarizer, lambda: pool_encoder(bart(), {1: 4})])
def test_a_summarizer_says_what_it_kept_too(make):
    documents = ["a b c d e f g h", "x y"]
    long, short = predict(make(), tiny_tokenizer(), documents, kept=True)
    assert (len(long.kept), len(short.kept)) == (4, 4)
    for text, answer in zip(documents, (long, short), strict=True):
        assert {one.token for one in answer.kept} <= {*text.split(), "[CLS]", "[SEP]"}
        assert all(0 < one.weight <= 1 for one in answer.kept)


def test_a_classifier_on_a_pooled_language_model_says_what_it_kept_too():
    torch.manual_seed(0)
    llama = LlamaForSequenceClassification(LlamaConfig(**LLAMA, num_labels=3))
    model, tokenizer, documents = pool_decoder(llama, {1: 4}).eval(), tiny_tokenizer(), texts(6)
    for text, answer in zip(documents, predict(model, tokenizer, documents, batch_size=4, kept=True), strict=True):
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad(), record_assignments() as recorded:
            model(**inputs)
        kept = [inputs.tokens()[position] for position in recorded[0].positions[0].tolist()]
        assert [token.token for token in answer.kept] == kept and kept[-1] == "[SEP]"
        assert len(kept) == min(4, len(inputs.tokens()) - 1) + 1


def test_kept_tokens_are_found_where_padding_stands_in_front():
    tokenizer, documents = tiny_tokenizer(), ["a b c d e f g h i j", "x y"]
    right = list(predict(ours(), tokenizer, documents, kept=True))
    tokenizer.padding_side = "left"
    left = list(predict(ours(k=20), tokenizer, documents, kept=True))
    assert [one.token for one in left[1].kept] == ["[CLS]", "x", "y", "[SEP]"]
    assert len(right[0].kept) == 4


def test_texts_are_cut_to_max_tokens_and_to_the_positions_of_a_model_that_has_few():
    model, tokenizer = bert(), tiny_tokenizer()  # of 64 positions
    long, cut = "a b c d " * 50, "a b c d " * 15 + "a b"
    assert [*predict(model, tokenizer, [long])] == [*predict(model, tokenizer, [cut])]
    assert [*predict(ours(), tokenizer, [long])] != [*predict(ours(), tokenizer, [cut])]
    assert [*predict(ours(), tokenizer, [long], max_tokens=5)] == [*predict(ours(), tokenizer, ["a b c"])]


def test_an_empty_text_has_an_answer_even_where_it_has_no_tokens():
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    assert tokenizer("")["input_ids"] == []
    found = list(predict(ours(), tokenizer, ["", "a b", ""], batch_size=1, kept=True))
    assert found[0] == found[2] and found[0].label is not None
    assert [one.token for one in found[1].kept] == ["a", "b"]


@pytest.mark.parametrize(("options", "message"), [
    ({"batch_size": 0}, "batch_size >= 1"), ({"block": 0}, "block >= 1"), ({"max_tokens": 2}, "max_tokens > 2"),
])  # fmt: skip
def test_impossible_numbers_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        predict(ours(), tiny_tokenizer(), [], **options)


def test_a_model_without_pooling_cannot_say_what_it_kept():
    with pytest.raises(ValueError, match="without a pooling"):
        predict(bert(), tiny_tokenizer(), [], kept=True)


def test_what_is_no_text_is_refused():
    for odd, got in ((7, "int"), (("a", "b", "c"), "tuple"), (("a", 3), "tuple")):
        with pytest.raises(ValueError, match=f"expected texts, or tuples of two texts, got {got}"):
            list(predict(ours(), tiny_tokenizer(), ["a", odd]))
    with pytest.raises(ValueError, match="expected texts of valid Unicode, got a lone surrogate in"):
        list(predict(ours(), tiny_tokenizer(), ["a", "b\ud800"]))
    with pytest.raises(ValueError, match="either single texts or pairs, got both"):
        list(predict(ours(), tiny_tokenizer(), ["a", ("a", "b")], batch_size=2))


@pytest.mark.parametrize("one", ["a text", b"a text", bytearray(b"a")], ids=lambda one: type(one).__name__)
def test_a_single_text_in_place_of_a_list_is_refused_at_once(one):
    with pytest.raises(ValueError, match=f"^expected a list of texts, got {type(one).__name__}; .*list$"):
        predict(ours(), tiny_tokenizer(), one)


def test_the_model_is_put_into_eval_mode():
    model = ours(classifier_dropout=0.5).train()
    first, second = (list(predict(model, tiny_tokenizer(), ["a b c"])) for _ in range(2))
    assert first == second
