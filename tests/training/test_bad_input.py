"""Any configuration, however wild, is run or refused: in one line, with exit code 2, before anything is trained."""

import importlib.util
import json
import shutil
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args, get_type_hints

import pytest
from accelerate.state import AcceleratorState
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import FIELDS, GROUPS, assert_refused

import train
from shtopk import training
from shtopk.training.command_line import Parser, parse, yaml_words

OFTEN = {"derandomize": True, "deadline": None, "suppress_health_check": list(HealthCheck)}

SENSIBLE: dict[str, list[Any]] = {
    "k": [4, 64, 0.1],
    "epochs": [1, 0.5],
    "operator": ["successive_halving", "iterative", "hard_gated"],
    "scorer": ["mlp", "first"],
    "schedule": ["cosine"],
    "mixed_precision": ["no", "bf16"],
    "protected": [0, -1],
    "window": [8, 64],
    "k_by_layer": ["1:8", {1: 8}],
    "k_range": ["2:8"],
    "max_tokens": [16],
    "max_train_samples": [8],
    "warmup": [0, 1],
    "tracker": ["none", "tensorboard"],
    "task": ["files", "bbc", "hub"],
    "summary_column": ["label"],
    "metric": ["f1", "rougeL"],
    "attn_implementation": ["eager"],
    "resume": ["latest"],
    **{name: [True, False] for name in ("keep_order", "freeze_encoder", "copy_head")},
    **{name: [1, 2] for name in ("freeze_layers", "window_k", "batch_size", "num_beams", "decoder_layers")},
}
WILD = [
    *("", " ", "nan", "inf", "-inf", "-1", "0", "1", "1.5", "1e3", "1e400", "1" * 400, "9" * 5000, "none", "no"),
    *("a\nb", "\0", "\ud800", "\udce9", "\x1b[31m", "\u2028", "é" * 300, "x" * 100_000, "--k", "-", "--", "%s", "{}"),
    *("/dev/null/run", "/nowhere/x", "/" + "x/" * 3000, "../..", "a,b", "1:", "2:256,2:4", "1:0", "1:99999999999"),
]
WILD_YAML = [
    *("[1, 2]", "[]", "{}", "{a: 1}", "{1: {2: 3}}", "null", "~", "yes", "off", ".nan", "-.inf", "0x" + "f" * 5000),
    *("2020-01-01", "2020-13-45", "2020-01-01 12:00:00", "1:30", "0b1", "!!binary aGk=", "!!binary é", "!!int x", "é"),
    *("!!timestamp x", "!!float ''", "!!bool 3", "!!set {a}", "!!omap [a: 1]", "!!null x", "!!str 3", "&a [*a]", "*b"),
    *("!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!unknown 1", "&a {b: *a}", "|\n  a\n b"),
    *("'\\0'", '"\\0"', '"\\ud800"', "'", "[", "{", "@", "`", "\t", "%", "? a", "[" * 500, "<<: {k: 1}", "9" * 5000),
]
texts = st.text(max_size=8) | st.sampled_from(WILD)
numbers = st.integers() | st.floats() | st.integers(-2, 2) | st.sampled_from([2**31 - 1, 2**31, 2**63, 10**30, 1e308])
numeric = {
    name for group in GROUPS for name, hint in get_type_hints(group).items() if {int, float} & {hint, *get_args(hint)}
}


def fields(wild: st.SearchStrategy, *, names=tuple(FIELDS)) -> st.SearchStrategy[list]:
    """Some fields with a value each: a sensible one, a number where one belongs, or a wild one."""

    def value(name: str) -> st.SearchStrategy:
        likely = [st.sampled_from(SENSIBLE[name])] * 2 if name in SENSIBLE else []
        return st.one_of(*likely, numbers if name in numeric else wild, wild)

    return st.lists(st.sampled_from(names).flatmap(lambda name: st.tuples(st.just(name), value(name))), max_size=4)


def command_words(chosen: list[tuple[str, Any]]) -> list[str]:
    return [f"--{name}={value}" for name, value in chosen]


def yaml_word(value) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace("NaN", ".nan").replace("Infinity", ".inf")


as_words = fields(texts).map(command_words) | st.lists(st.sampled_from(["--", "--k", "-k", "a"]) | texts)
as_yaml = fields(st.sampled_from(WILD_YAML), names=(*FIELDS, "kk", "config", "", "1")).map(
    lambda chosen: "".join(f"{name}: {yaml_word(value)}\n" for name, value in chosen)
) | st.sampled_from(["- k", "3", "[]", "no", "a: b: c", "k: 4\nk: 8", "---\nk: 4\n---\nk: 4", "[a]: b", "1: 2"])


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@settings(max_examples=500, **OFTEN)
@given(words=as_words)
def test_any_command_line_is_taken_or_refused_in_one_line(words, elsewhere, last_line):
    if not {"-h", "--help"} & set(words):
        last_line(parse, words)


@settings(max_examples=300, **OFTEN)
@given(text=as_yaml)
def test_any_yaml_file_is_taken_or_refused_in_one_line(text, elsewhere, last_line):
    (elsewhere / "any.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    last_line(parse, ["--config", "any.yaml"])


class Reached(Exception):
    """Training would have begun."""


@pytest.fixture
def start(encoder, documents, elsewhere, monkeypatch):
    """Run train.py with more words than its data and its encoder, up to training; returns nothing, or is refused."""

    def reach(run):
        raise Reached

    monkeypatch.setattr(training, "fit", reach)

    def run(words: list[str]) -> None:
        AcceleratorState._reset_state(True)
        shutil.rmtree("run", ignore_errors=True)
        with pytest.raises(Reached):
            train.main([f"--train_file={documents}", f"--backbone={encoder}", "--output_dir=run", *words])

    yield run
    AcceleratorState._reset_state(True)


LARGE = [10**6, 2**30, 2**31 - 1, 2**32, 2**64, 1e308]
OF_A_RUN = {
    name: [-1, 0, 1, 2, 9, *LARGE] if name in numeric else [value for value in WILD if value.isprintable()]
    for name in sorted(FIELDS.keys() - {"output_dir", "train_file", "backbone", "task", "overwrite", "dry_run"})
}


@pytest.mark.slow
@settings(max_examples=100, **OFTEN)
@given(
    words=st.lists(
        st.sampled_from(sorted(OF_A_RUN)).flatmap(
            lambda name: st.tuples(st.just(name), st.sampled_from(SENSIBLE.get(name, []) * 5 + OF_A_RUN[name]))
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda pair: pair[0],
    ).map(command_words)
)
def test_any_run_begins_to_train_or_is_refused_in_one_line(words, start, last_line):
    last_line(start, words)


# What it found, and what people get wrong


def with_options(*words):
    """Each with the option that it is to be blamed on."""
    return [(word, word[2:].partition("=")[0]) for word in words]


@pytest.mark.parametrize(("word", "named"), [
    *with_options("--k=many", "--k=1.5", f"--k={2**21}", "--k_by_layer=2:x", "--k_by_layer=1:" + "9" * 5000),
    *with_options("--k_range=8:4", "--k_range=0:8", "--k_range=4.5:8", "--k_range=272", "--k_range=1:" + "9" * 5000),
    *with_options("--temperature=-1", "--initial_temperature=0", "--operator=magic", "--protected=first"),
    *with_options("--window=1", "--window=100", "--classifier_dropout=1", "--backbone=--", "--learning_rate=nan"),
    *with_options("--epochs=0", "--epochs=1e308", "--batch_size=two", "--warmup=2", f"--seed={2**32}"),
    *with_options("--lora_r=64", "--lora_alpha=8", "--lora_dropout=1", "--workers=257"),
    *with_options("--run_name=../other", "--project=/etc", "--max_steps=0", "--private=true"),
    *with_options("--push_to_hub=a,b", "--push_to_hub=me/topics"),  # no name; no network
    *with_options(f"--max_tokens={2**64}", "--length_penalty=nan", "--train_file=", "--summary_column= "),
    *with_options("--output_dir=file/run", "--output_dir=nowhere", "--output_dir=" + "x" * 300),
    ("--output_dir=a\0b", r"a\x00b"),
    ("--k_by_layer=1:2097152", "layer 1 in k_by_layer"),
    ("--k_by_layer=7:3", "k_by_layer to name layers in 0..1 for this BertEncoder, got 7"),
    ("--k_by_layer=1:2", "k_by_layer, at layer 1: expected fewer protected tokens than k = 2"),
    ("--k_by_layer=1:8,01:4", "each layer once"),
    ("--freeze_layers=3", "freeze 3 layers"),
    ("--backbone=/nowhere", "/nowhere"),
    ("--backbone_sha256=00", "00"),
    ("--do_train", "--do_train"),
    ("--num_train_epoch=1", "--num_train_epochs"),
    ("--k_by_layer=1:9999", "k_by_layer, at layer 1,"),
    ("--k_range=2:9999", "k_range"),
    ("--k=1000000", "k"),
    ("--decoder_layers=1", "decoder_layers"),
    ("--needle_tokens=400", "needle_tokens"),
    ("--tracker=tensorboard,", "''"),
    ("--train_file=/nowhere/data.csv", "/nowhere/data.csv"),
    ("--train_file=" + "x" * 300 + ".csv", "x" * 300 + ".csv"),
    ("--text_column=body", "'body'"),
    ("--text_column=caf\udce9", r"caf\udce9"),
    ("--config=", "configuration"),
    ("--config=/nowhere.yaml", "/nowhere.yaml"),
    ("--kk=a\nb\x1b[31m", r"--kk=a b\x1b[31m"),
])  # fmt: skip
def test_a_command_line_says_what_is_wrong(word, named, elsewhere, refusal):
    (elsewhere / "file").write_text("")
    (elsewhere / "nowhere").symlink_to(elsewhere / "gone")
    message = refusal(word)
    assert_refused(message, named)
    assert "cannot load the weights" not in message


@pytest.mark.parametrize(("word", "named"), [
    *with_options("--metric=accuracy", "--metric=empty", "--decoder_layers=3", "--window_k=0", "--num_beams=0"),
    ("--decoder=other", "decoder_layers"),
    *with_options("--min_new_tokens=1000", "--max_summary_tokens=2", "--length_penalty=2.0", "--task=bbc"),
    ("--max_summary_tokens=64", "lower max_summary_tokens"),
    ("--summary_column=points", "'points'"),
    ("--attn_implementation=flash_attention_2", "FlashAttention2"),
])  # fmt: skip
def test_a_command_line_for_summaries_says_what_is_wrong(word, named, refusal, summary_words):
    assert_refused(refusal(word, base=summary_words), named)


@pytest.mark.parametrize(("text", "named"), [
    *((f"seed: {value}", "any.yaml") for value in ("2020-13-45", "!!int x", "!!bool 3", "!!timestamp x")),
    *((f"seed: {value}", "any.yaml") for value in ("[" * 500, "9" * 5000)),
    ("[]", "any.yaml"),
    ("- k", "list"),
    ("k: [", "YAML"),
    ("k: 4\nkk: 5", "kk"),
    ("num_train_epoch: 5", "did you mean num_train_epochs"),
    ("evaluation_strategy: epoch", "eval_every"),
    ("seed: 0x" + "f" * 5000, "4300 digits"),
    ("batch_size: !!python/object/apply:os.system ['true']", "YAML"),
    ("text_column: 2020-01-01", "text_column"),
    ("output_dir: {a: 1}", "output_dir"),
    ("output_dir: !!binary aGk=", "output_dir"),
    ('output_dir: "\\0"', "output_dir"),
    ("epochs: &a [*a]", "epochs"),
    ("warmup: [1, 2]", "warmup"),
])  # fmt: skip
def test_a_yaml_file_says_what_is_wrong(text, named, elsewhere, refusal):
    (elsewhere / "any.yaml").write_text(text)
    assert_refused(refusal("--config=any.yaml"), named)


def test_numbers_that_are_all_equal_are_refused_by_their_column_and_file(refusal, write):
    path = write("equal.csv", "text,stars\n" + "".join(f"document {i},2.1\n" for i in range(40)))
    message = refusal("--train_file", path, "--label_column", "stars", "--problem_type", "regression")
    assert_refused(message, "'stars'", path, "2.1 for all 28 training documents", "nothing to learn")


@pytest.mark.parametrize("words", [["--protected", "0", "-1"], ["--protected", "0,-1"], ["--protected=0, -1"]])
def test_a_list_may_have_commas_between(words, elsewhere):
    assert parse(words).model.protected == [0, -1]
    assert parse(["--protected", "-1,0", "--k", "4"]).model.protected == [-1, 0]


def test_a_bare_no_is_no_and_a_byte_order_mark_is_none(elsewhere):
    (elsewhere / "any.yaml").write_text("\ufeffmixed_precision: no\nk: 8\nkeep_order: off\n", encoding="utf-8")
    arguments = parse(["--config", "any.yaml"])
    assert (arguments.training.mixed_precision, arguments.model.k, arguments.model.keep_order) == ("no", "8", False)


def test_a_list_in_yaml_is_several_values_where_a_field_takes_several(elsewhere, capsys):
    @dataclass
    class Places:
        _argument_group_name: ClassVar[str] = "model"
        protected: list[int] = field(default_factory=lambda: [1])

    parser = Parser(Places)
    for text, expected in (("[0, -1]", ["--protected", "0", "-1"]), ("[]", ["--protected"]), ("null", []),
                           ("2", ["--protected=2"])):  # fmt: skip
        (elsewhere / "any.yaml").write_text(f"protected: {text}")
        assert yaml_words("any.yaml", parser) == expected
    assert parser.parse_args_into_dataclasses(["--protected", "0", "-1"])[0].protected == [0, -1]
    assert parser.parse_args_into_dataclasses(["--protected"])[0].protected == []
    (elsewhere / "any.yaml").write_text("protected: [--k]")
    with pytest.raises(ValueError, match="expected values as protected, got --k"):
        yaml_words("any.yaml", parser)


@pytest.mark.parametrize(("given", "named"), [
    (["--lora_r=2", "--lora_targets=query,keys"], ["lora_targets", "keys", "query"]),
    (["--lora_r=2", "--freeze_encoder=true"], ["freeze_encoder", "lora_r"]),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(given, named, refusal):
    assert_refused(refusal(*given), *named)


def test_lora_without_peft_and_deepspeed_are_refused(refusal, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert_refused(refusal(), "DeepSpeed", "configs/accelerate/fsdp.yaml")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    assert_refused(refusal("--lora_r", 2), "lora_r", "pip install peft")


def test_a_range_of_k_begins_above_the_protected_tokens(refusal):
    assert_refused(refusal("--k_range", "1:8", "--protected", 0), "k_range to begin above the 1 protected")


@pytest.mark.parametrize("name", ["rfc_folder", "train_file", "output_dir"])
def test_a_path_that_is_too_long_is_refused_in_one_line(name, elsewhere, last_line):
    words = ["--task", "rfc"] if name == "rfc_folder" else []
    assert "/x/x" in last_line(parse, [*words, f"--{name}={'/x' * 3000}.csv"])
