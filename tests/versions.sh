#!/usr/bin/env bash
# Do the lower bounds of pyproject.toml hold, and do the newest releases work? All tests of the code but for the slow ones,
# with the oldest versions that pyproject.toml allows and with the newest, each in an environment of its own, removed
# afterwards: the library alone, beside torch and nothing else, and with all that `shtopk train` needs. A line for each.
# Usage: tests/versions.sh FOLDER [oldest-alone|newest-alone|oldest-trainer|newest-trainer]... (all four by default)
# PYTHON: the interpreter. UV_TORCH_BACKEND=cpu: a torch without CUDA, from torch's own index, which takes 6 GB less.
set -euo pipefail
clone=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
shift
[ $# -gt 0 ] || set -- oldest-alone newest-alone oldest-trainer newest-trainer
for run in "$@"; do
    [[ $run =~ ^(oldest|newest)-(alone|trainer)$ ]] || { echo "versions: no run is called $run"; exit 2; }
done
python=$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)')
rm -rf "$folder" && mkdir -p "$folder/tree"
folder=$(cd "$folder" && pwd)

# A copy, as each environment compiles the C anew
cd "$clone"
git ls-files -z --cached --others --exclude-standard | tar cf - --ignore-failed-read --null --files-from - 2> /dev/null |
    tar xf - -C "$folder/tree"
"$python" -m venv "$folder/tools"
"$folder/tools/bin/pip" install --quiet --disable-pip-version-check uv
cd "$folder/tree"
export VIRTUAL_ENV="$folder/env" PATH="$folder/env/bin:$PATH" OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
uv() { "$folder/tools/bin/uv" "$@"; }

install() { # RUN: first what pyproject.toml bounds, then, without a change to that, what the tests need
    local resolution=highest extras="" tests=(pytest pytest-xdist hypothesis)
    [[ $1 != oldest-* ]] || resolution=lowest-direct
    [[ $1 != *-trainer ]] || { extras="[demo,retrieval]" tests=(--editable ".[test]"); }
    rm -rf "$folder/env"
    uv venv --quiet --python "$python" "$folder/env" &&
        uv pip install --quiet --resolution "$resolution" --editable ".$extras" &&
        uv pip freeze --exclude-editable > "$folder/$1.txt" &&
        uv pip install --quiet --constraint "$folder/$1.txt" "${tests[@]}"
}

tested() { # RUN
    local tests=(tests --ignore tests/docs --ignore tests/benchmarks)
    [[ $1 != *-alone ]] || tests=(tests/shtopk)
    HF_DATASETS_CACHE="$folder/datasets-$1" python -m pytest -n 2 --dist worksteal -m "not slow" "${tests[@]}"
}

failed=0
for run in "$@"; do
    install "$run" > "$folder/$run.log" 2>&1 && tested "$run" >> "$folder/$run.log" 2>&1 || failed=1
    found=$(grep -hE '^(torch|transformers|datasets|sentence-transformers)==' "$folder/$run.txt" | tr '\n' ' ' || true)
    echo "versions: $run: ${found}on $("$python" --version): $(tail -n 1 "$folder/$run.log"), see $folder/$run.log"
    rm -rf "$folder/env"
done
exit $failed
