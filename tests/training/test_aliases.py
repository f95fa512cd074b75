"""Names of fields that people know from transformers: taken, on the command line and in YAML, and told in --help."""

import pytest

from shtopk.tasks import DataArguments
from shtopk.training import ModelArguments
from shtopk.training.aliases import ALIASES
from shtopk.training.arguments import TrainArguments
from shtopk.training.command_line import parse

OURS = {name for group in (DataArguments, ModelArguments, TrainArguments) for name in vars(group())}


def test_an_alias_names_a_field_and_is_none():
    assert set(ALIASES.values()) <= OURS
    assert not set(ALIASES) & OURS


def test_aliases_are_read_from_the_command_line_and_from_yaml(tmp_path):
    config = tmp_path / "theirs.yaml"
    config.write_text(
        "{num_train_epochs: 2, per_device_train_batch_size: 4, max_seq_length: 64, report_to: tensorboard}"
    )
    words = ["--config", str(config), "--output_dir", str(tmp_path / "run"), "--per-device-train-batch-size=8",
             "--gradient_accumulation_steps", "2", "--overwrite_output_dir", "--epochs", "3"]  # fmt: skip
    arguments = parse(words)
    training = arguments.training
    assert (training.epochs, training.batch_size, training.accumulation, training.overwrite) == (3, 8, 2, True)
    assert (arguments.data.max_tokens, training.tracker) == (64, "tensorboard")


def test_two_names_of_one_field_are_refused(refusal, tmp_path):
    wanted = "epochs and num_train_epochs are two names of one field, epochs; leave one of them out"
    assert wanted in refusal("--num_train_epochs", "3")
    message = refusal("--max_seq_length=9", "--max_source_length=9")
    assert "max_seq_length and max_source_length are two names" in message
    config = tmp_path / "both.yaml"
    config.write_text("num_train_epochs: 2\nepochs: 3\n")
    assert "num_train_epochs and epochs are two names" in refusal("--config", config)


def test_help_shows_our_names_and_tells_the_others(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(also --per_device_train_batch_size)" in text
    assert "(also --max_seq_length, --max_source_length)" in text
    assert "--max_seq_length MAX_SEQ_LENGTH" not in text
