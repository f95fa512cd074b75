"""A training by train.py whose figures a page shows.

python benchmarks/summarizers.py train-docstrings --config configs/docstrings.yaml [--any_field value ...]

All that follows the name goes to train.py. What its all_results.json holds is kept in benchmarks/results/NAME.json. A
run that was stopped goes on from its folder in runs/, if the code is the same.
"""

import argparse
import shlex

import origin
from record import ROOT, CommandLine, save

import train


def main() -> None:
    parser = CommandLine(__doc__, device=False)
    parser.add_argument("name", help="of the result")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="of train.py")
    arguments = parser.parse_args()
    path = arguments.results / f"{arguments.name}.json"
    code = origin.here("summarizers", path.stem, cpu=True)["files"]
    results = train.main(
        [*arguments.words, f"--output_dir={ROOT / 'runs' / f'{path.stem}-{code}'}", "--resume=latest"]
    )
    save(results | {"command": shlex.join(["python", "train.py", *arguments.words]), "measured": []}, path)


if __name__ == "__main__":
    main()
