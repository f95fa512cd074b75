"""The rows of `make compare`: ways to get from n token vectors to the vector of a document."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
        name: as the table shows it.
        pooling: arguments of `shtopk.TopKPooling`, or of the rival, that differ from its defaults.
        k: slots, where it is not the table's k: 1.0 keeps all tokens, 1 the first alone.
        freeze_scorer: do not train the scorer.
        kind: "topk"; "oracle", which only the needle task has; "taught", whose scorer learns from the attention that
            the encoder's last layer pays (rivals/teacher.py); or one of `rivals.RIVALS`. All but "topk" with a frozen
            encoder alone.
        scorer_learning_rate: with a frozen encoder. It and the temperatures are those that tune.py finds best.
    """

    name: str
    pooling: dict = field(default_factory=dict)
    k: int | float | None = None
    freeze_scorer: bool = False
    kind: str = "topk"
    scorer_learning_rate: float = 1e-2


BOTH = {"eval_operator": "successive_halving"}  # a tournament in eval mode, too
ANNEALED = BOTH | {"temperature": 1 / 16, "initial_temperature": 4.0}
FROM_8, ITERATIVE = ANNEALED | {"initial_temperature": 8.0}, {"operator": "iterative"}
MERGED = {"operator": "select_and_merge"}  # in training, too
FIRST = {"operator": "hard", "scorer": "first"}

VARIANTS = [
    Variant("successive halving", scorer_learning_rate=3e-2),
    Variant("successive halving in both modes", BOTH),
    Variant("select and merge in both modes", MERGED | {"temperature": 2.0}, scorer_learning_rate=3e-2),
    Variant("successive halving, annealed", FROM_8, scorer_learning_rate=3e-2),
    Variant("successive halving, relative", {"operator": "successive_halving_relative"}),
    Variant("iterative top-k", ITERATIVE | {"initial_temperature": 4.0, "temperature": 0.1}),
    Variant("hard top-k, gated", {"operator": "hard_gated"}),
    Variant("hard top-k, straight-through", {"operator": "hard_straight_through"}, scorer_learning_rate=3e-2),
    Variant("random scorer, frozen", {"operator": "hard"}, freeze_scorer=True),
    Variant("every (n/k)-th token", {"operator": "hard", "scorer": "strided"}),
    Variant("first k tokens", FIRST),
    Variant("mean of all tokens", FIRST, k=1.0),
    Variant("[CLS] alone", FIRST, k=1),
]
SUMMARIES = [
    Variant("successive halving"),
    Variant("select and merge in eval mode", {"eval_operator": "select_and_merge"}),
    Variant("select and merge in both modes", MERGED),
    Variant("successive halving, annealed", ANNEALED),
    Variant("iterative top-k", ITERATIVE),
    Variant("hard top-k, gated", {"operator": "hard_gated"}),
    Variant("random scorer, frozen", {"operator": "hard"}, freeze_scorer=True),
    Variant("first k tokens", FIRST),
    Variant("no pooling: the decoder sees all tokens", FIRST, k=1.0),
]
NEEDLE_ONLY = [
    Variant("softmax attention, k queries", kind="attention"),
    Variant("oracle: mean of the evidence", FIRST, k=1.0, kind="oracle"),
]
RIVAL_ROWS = [
    Variant("DFTopK", {"temperature": 0.25}, kind="dftopk"),
    Variant("LapSum", {"initial_temperature": 1.0}, kind="lapsum", scorer_learning_rate=3e-2),
    Variant("perturbed top-k", {"initial_temperature": 16.0}, kind="perturbed"),
    Variant("hard top-k, taught by [CLS]'s attention", {"operator": "hard"}, kind="taught", scorer_learning_rate=3e-2),
    Variant("attention-guided clusters", kind="agc", scorer_learning_rate=3e-3),
    Variant("Ward clusters", kind="ward"),
    Variant("linear map over places", {"tokens": 4096}, kind="linear_map", scorer_learning_rate=3e-2),
    Variant("means of k stretches", kind="stretches"),
]
BBC_ONLY = [  # documents of 2,000 tokens take 20 minutes a training
    Variant("Ward clusters, trained through", {"learned_map": True}, kind="ward", scorer_learning_rate=1e-3),
]
