#!/usr/bin/env bash
# What someone gets who installs the wheel: built from the sdist, installed into an empty environment outside the clone,
# and tried with the commands that the README names, with and without the compiled C. The notebook runs there, too.
# Usage: tests/wheel.sh FOLDER (made anew; PYTHON: the interpreter, CONSTRAINTS: versions)
set -euo pipefail
clone=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
python=${PYTHON:-python3}
rm -rf "$folder" && mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

step() { echo "wheel: $*"; }
trap 'echo "wheel: line $LINENO failed"; tail -n 5 "$folder"/*.log' ERR

step "build the sdist, and a wheel from it"
"$python" -m venv "$folder/tools"
"$folder/tools/bin/pip" install --quiet --disable-pip-version-check build twine
(cd "$folder" && tools/bin/python -m build --outdir dist "$clone" > build.log 2>&1)
"$folder/tools/bin/twine" check --strict "$folder"/dist/* > "$folder/twine.log"
tar tzf "$folder"/dist/*.tar.gz | cut -d / -f 2- > "$folder/sdist.txt"
for file in LICENSE README.md CHANGELOG.md configs/bbc.yaml tests/conftest.py tests/shtopk/test_native.py \
    shtopk/backends/tournament.c shtopk/backends/{tournament,pool,clusters}.h; do
    grep -qx "$file" "$folder/sdist.txt" || { step "expected $file in the sdist"; exit 1; }
done
! grep -E '^(benchmarks|docs|runs|build)/|\.cache|__pycache__|\.(so|pyd)$' "$folder/sdist.txt" || { step "that is not for an sdist"; exit 1; }
mkdir "$folder/without" && (cd "$folder" && CC=/bin/false tools/bin/pip wheel --quiet --disable-pip-version-check \
    --no-deps --wheel-dir without dist/*.tar.gz)

step "install it"
"$python" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --constraint "${CONSTRAINTS:-$clone/constraints.txt}" \
    "$(ls "$folder"/dist/*.whl)[demo]"
cd "$folder" && export PATH="$folder/env/bin:$PATH" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
shtopk env
shtopk env | grep -q '^on the CPU  *C$' || { step "expected the C to be compiled"; exit 1; }

step "train, evaluate, predict, sweep, show"
python - <<'END'
import csv, random
noise = random.Random(0)
with open("mine.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["text", "label", "id"])
    for i in range(60):
        words = noise.choices(["today", "people", "said", "that", ("goal", "bank")[i % 2]], k=30)
        rows.writerow([" ".join(words), ("sport", "money")[i % 2], i])
END
shtopk train --train_file mine.csv --k 8 --epochs 2 --batch_size 8 --head_learning_rate 1e-2 --show 1 \
    --output_dir model 2> train.log
shtopk evaluate model --test_file mine.csv 2> evaluate.log
test -s runs/evaluation/results.json -a -s runs/evaluation/confusion.png
predict() { shtopk predict model mine.csv --keep id --output "$1" 2> predict.log; }
predict with-c.jsonl
test "$(wc -l < with-c.jsonl)" = 60
head -2 with-c.jsonl
printf 'The bank said that people lost money.\n' | shtopk predict model - 2> predict.log
shtopk sweep model --test_file mine.csv --k 2,8 2> sweep.log
printf 'The goal that people talk about today.' > document.txt
shtopk show model document.txt
test -s document.html

step "the same without a C compiler"
pip install --quiet --disable-pip-version-check --no-deps --force-reinstall without/*.whl
shtopk env | grep '^on the CPU  *tensor operations'
predict without-c.jsonl
python - <<'END'
import json
with_c, without = ([json.loads(line) for line in open(name)] for name in ("with-c.jsonl", "without-c.jsonl"))
assert [row["prediction"] for row in with_c] == [row["prediction"] for row in without]
assert all(abs(a["probability"] - b["probability"]) < 1e-4 for a, b in zip(with_c, without, strict=True))
END
step "the notebook, from installation to a picture"
pip install --quiet --disable-pip-version-check --constraint "${CONSTRAINTS:-$clone/constraints.txt}" nbclient ipykernel
(cd "$clone/docs" && jupyter execute --output "$folder/tour" tour.ipynb 2> "$folder/notebook.log")
test "$(grep -c '"image/png"' "$folder/tour.ipynb")" = 2 || { step "expected two pictures in the notebook"; exit 1; }
step "all is well"
