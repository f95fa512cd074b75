"""Reading small files of documents, and the line that they are refused with."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from shtopk.tasks import DataArguments, check, get_task


def load(**given):
    arguments = DataArguments(**given)
    check(arguments)
    return get_task(arguments).load(arguments)


def complaint(**given) -> str:
    """The one line that these arguments are refused with."""
    with pytest.raises(ValueError) as caught:
        load(**given)
    return str(caught.value)


def lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def parquet(table: pyarrow.Table, **options) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


ROWS = [{"text": f"document {i}", "label": "ab"[i % 2]} for i in range(40)]
FILES = {  # the same rows as files of each kind
    "json": json.dumps(ROWS, indent=1),
    "jsonl": lines(ROWS),
    "csv": "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS),
    "parquet": parquet(pyarrow.Table.from_pylist(ROWS), write_page_checksum=True),
}
