"""Reading small files of documents, and the line that they are refused with."""

import json

import pytest

from shtopk.tasks import DataArguments, check, get_task

ROWS = [{"text": f"document {i}", "label": "ab"[i % 2]} for i in range(40)]


def load(**given):
    arguments = DataArguments(**given)
    check(arguments)
    return get_task(arguments).load(arguments)


def complaint(**given) -> str:
    """The one line that these arguments are refused with."""
    with pytest.raises(ValueError) as caught:
        load(**given)
    message = str(caught.value)
    assert "\n" not in message
    return message


def lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
