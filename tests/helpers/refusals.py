"""What a refusal blames: the option, the file, the line; its words are free, but for those of test_messages.py."""

import re

from shtopk.tasks import DataArguments
from shtopk.training import ModelArguments, TrainArguments

GROUPS = (DataArguments, ModelArguments, TrainArguments)
FIELDS = {name: default for group in GROUPS for name, default in vars(group()).items()}


def assert_refused(message: str, *named) -> None:
    """A message is one line that names all of these as words; if the first is an option, before any other option."""
    assert "\n" not in message
    assert "unknown arguments" not in message or any(str(word).startswith("--") for word in named[:1]), (
        message
    )  # an option that has another name
    for word in map(str, named):
        assert re.search(rf"(?<!\w){re.escape(word)}(?!\w)", message), f"expected {word!r} to be named in: {message}"
    blamed = [word for word in re.findall(r"\w+", re.sub(r"(^|\s)/\S*", "", message)) if word in FIELDS]
    if named and named[0] in FIELDS:
        assert blamed[0] == named[0], f"expected {named[0]} to be blamed, not {blamed[0]}, in: {message}"
