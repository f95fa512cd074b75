"""How train.py words a refusal: ten in full. Elsewhere tests ask for what is named, and leave the words free."""

import gzip

import pytest

CASES = [  # what is given, the file of documents, the line that is said
    (["--k=0"], "", "expected k to be a whole number >= 1 or a share in (0, 1], got 0"),
    (["--learning_rte=1"], "",
     "unknown arguments: --learning_rte=1; did you mean --learning_rate? See train.py --help"),
    (["--tracker=tensorbord"], "",
     "expected tracker to be none or of aim, clearml, comet_ml, dvclive, mlflow, swanlab, tensorboard, trackio, "
     "wandb; got 'tensorbord'"),
    (["--copy_head=true"], "",
     "copy_head is for summaries, but the task files has classes or labels or numbers; leave it out"),
    (["--config={path}"], "k: 4\nk: 8", "expected every field once in {path}, got several times: k; leave one each"),
    (["--config={path}"], "text_column: no",
     "expected a text as text_column, got False (bool) in YAML; put it in quotes"),
    (["--train_file={path}"], "text;label\na;b\n",
     "expected a column 'text' in {path}, got 'text;label'; put commas between the cells of a .csv, in place of ';'"),
    (["--train_file={path}"], gzip.compress(b"text,label\na,b\n", mtime=0),
     "expected {path} to be text, got a gzip archive; unpack it with gunzip"),
    (["--train_file={path}"], "text,label\na,b\nc\n",
     "expected 2 cells in the row that ends at line 3 of {path}, got 1; is the file complete?"),
    (["--test_file={path}"], "text,label\na,opera\n",
     "expected the labels of {path} to occur in training ('money', 'sport'), got 'opera'; "
     "drop_unknown_labels leaves such documents out"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "content", "line"), CASES, ids=[line for *_, line in CASES])
def test_a_refusal_reads_like_this(given, content, line, refusal, write):
    path = write("some.csv", content)
    assert refusal(*(word.format(path=path) for word in given)) == "train.py: " + line.format(path=path)
