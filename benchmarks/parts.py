"""All results, in the order in which `make results` measures them: those that the README shows first.

Minutes are rough, of two idle cores; what a record says of itself counts more. What figures depend on is found in the
code (reached.py). A part only says which of what its script could do it does not.
"""

import shlex
from dataclasses import dataclass
from functools import cache

from variants import NEEDLE_ONLY, VARIANTS


@dataclass(frozen=True)
class Part:
    """Results that are measured together.

    Attributes:
        name: as `make results PARTS="..."` has it.
        files: in benchmarks/results/, without .json.
        commands: of scripts in benchmarks/, one after the other. A record keeps the only one, if that says all, or the
            name of the part.
        minutes: that they take, about.
        timed: it measures time, so nothing else may run.
        readme: the README shows some of it.
        threads: OMP_NUM_THREADS; None: as many as there are.
        keeps_memory: glibc does not give freed memory back (docs/performance.md): faster, with a higher peak.
        needs: "gpu" or "rfcs", which `make rfcs` fetches.
        reads: results that it takes its settings from.
        scripts: that make the files, where they are others than those of the commands.
        tasks: those of shtopk.tasks that it reads.
        without: what its script reaches with other options: modules, or names as "module.name".
    """

    name: str
    files: tuple[str, ...]
    commands: tuple[str, ...]
    minutes: float
    timed: bool = False
    readme: bool = False
    threads: int | None = None
    keeps_memory: bool = False
    needs: str | None = None
    reads: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """Of all commands."""
        return [word for command in self.commands for word in shlex.split(command)]

    def script(self, file: str) -> str:
        """The module that makes a file."""
        own = self.commands[0].split(".py")[0]
        return dict(zip(self.files, self.scripts, strict=False)).get(file, own)


EVERY_K = shlex.join(variant.name for variant in VARIANTS + NEEDLE_ONLY)
FIVE_SEEDS = "--seeds 0 1 2 3 4"
TRAINED = "'all tokens' 'successive halving' 'select and merge in both modes' 'Ward clusters'"
CLOSE = "'successive halving' 'select and merge in both modes' 'attention-guided clusters'"  # of what retrieval trains
DOCSTRINGS, RFC = "--config configs/docstrings.yaml", "--config configs/rfc-small.yaml"
ANNEALED, FROM_A_HALF = (f"--temperature 0.0625 --initial_temperature {start}" for start in (4, 0.5))
FROZEN = ("compare.FineTuned", "pace")  # what compare.py does not do where the encoder is frozen

PARTS = (
    Part("needle", ("compare-needle",),
         (f"compare.py --tasks needle --k 2 4 16 64 128 --variants {EVERY_K}",
          f"compare.py --tasks needle {FIVE_SEEDS}"),
         150, readme=True, threads=1, tasks=("bbc", "needle"), without=FROZEN),
    Part("bbc", ("compare-bbc",), (f"compare.py --tasks bbc {FIVE_SEEDS}",), 90, readme=True, threads=1,
         tasks=("bbc",), without=FROZEN),
    Part("between", ("between",), ("between.py",), 90, readme=True, threads=1, tasks=("bbc",), without=("pace",)),
    Part("between-speed", ("between-speed",), ("between.py --speed",), 10, timed=True, readme=True, threads=1,
         tasks=("bbc",)),
    Part("scaling", ("scaling",), ("scaling.py",), 8, timed=True, readme=True),
    Part("retrieval", ("retrieval",), ("retrieval.py", f"retrieval.py --seeds 3 4 --ways {CLOSE}"), 110, readme=True,
         threads=1, tasks=("bbc", "needle"), without=("retrieval_ways.candidates", "retrieval_ways.GRID")),
    Part("retrieval-summaries", ("retrieval-summaries",),
         ("retrieval.py --name retrieval-summaries --tasks docstrings rfc",), 60, readme=True, threads=1,
         needs="rfcs", tasks=("docstrings", "rfc"), without=("retrieval_ways.candidates", "retrieval_ways.GRID")),
    Part("merging", ("merging",), ("merging.py",), 2, timed=True, readme=True),
    Part("speed-default", ("speed-default",), ("speed.py --default-only",), 3, timed=True, readme=True,
         without=("speed_gpu",)),
    Part("kept", ("kept",), ("kept.py",), 8, readme=True, threads=1, tasks=("bbc", "needle")),
    Part("gpu", ("gpu/gpu", "gpu/speed-gpu", "gpu/finetune-gpu", "gpu/paper-full"), ("gpu.py",), 9, timed=True,
         readme=True, needs="gpu", scripts=("gpu", "speed_gpu", "finetune_gpu", "paper"), tasks=("bbc", "files")),
    Part("speed", ("speed",), ("speed.py",), 15, timed=True, readme=True, without=("speed_gpu", "speed.time_default")),
    Part("planted", ("planted-tuning", "planted-small"), ("planted.py",), 30, threads=1),
    Part("planted-large", ("planted-large",), ("planted.py --size large",), 25, threads=1, reads=("planted-tuning",)),
    Part("peers", ("peers",), ("peers.py",), 10, timed=True, reads=("compare-needle", "retrieval", "planted-small")),
    Part("annealing", ("annealing",), ("annealing.py",), 1),
    Part("paper", ("paper-full",), ("paper.py",), 40, timed=True),
    Part("growth", ("growth",), ("growth.py --updates 4",), 10, timed=True, threads=1, tasks=("files",)),
    Part("predict", ("predict",), ("predict.py",), 5, timed=True, tasks=("files",)),
    Part("big-data", ("big-data",), ("big_data.py --mib 1024 --documents 800000 --small 4",), 5, timed=True, threads=1,
         tasks=("files",)),
    Part("prompt-speed", ("prompt-speed",), ("prompt_speed.py",), 10, timed=True),
    Part("teachers", ("teachers",), ("teachers.py",), 90, threads=1, tasks=("bbc", "needle"),
         without=(*FROZEN, "retrieval_ways.candidates", "retrieval_ways.GRID")),
    Part("budgets", ("budgets-needle",), ("budgets.py --seeds 0 1",), 15, threads=1, tasks=("bbc", "needle")),
    Part("tune", ("tune-needle",), ("tune.py",), 60, threads=1, tasks=("bbc", "needle"), without=FROZEN),
    Part("retrieval-tuning", ("retrieval-tuning",), ("retrieval.py --tune",), 40, threads=1, tasks=("bbc", "needle"),
         without=("retrieval_ways.WAYS",)),
    Part("train-docstrings", ("train-docstrings",), (f"summarizers.py train-docstrings {DOCSTRINGS} {ANNEALED}",), 15,
         threads=1, tasks=("docstrings",)),
    Part("train-rfc-small", ("train-rfc-small",), (f"summarizers.py train-rfc-small {RFC} {ANNEALED}",), 25,
         threads=1, needs="rfcs", tasks=("rfc",)),
    Part("train-start", ("train-docstrings-start-0.5",),
         (f"summarizers.py train-docstrings-start-0.5 {DOCSTRINGS} --epochs 0.4 --show 0 {FROM_A_HALF}",), 7,
         threads=1, tasks=("docstrings",)),
    Part("docstrings", ("compare-docstrings",), ("compare.py --tasks docstrings",), 160, timed=True, threads=1,
         keeps_memory=True, tasks=("docstrings",), without=("compare.Frozen",)),
    Part("retrieval-trained", ("retrieval-trained",),
         (f"retrieval_trained.py --tasks bbc --epochs 1 --k 8 32 --seeds 0 1 2 --ways {TRAINED}",),
         105, threads=1, tasks=("bbc",)),
    Part("prompt-recall", ("prompt-recall",), ("prompt_recall.py",), 120, threads=1),
)  # fmt: skip


NAMES = {part.name: part for part in PARTS}


@cache
def part_of(result: str) -> Part | None:
    """The part that makes a result, which is given without its folder; None for one that nobody shows."""
    return next((part for part in PARTS for file in part.files if file.split("/")[-1] == result), None)
