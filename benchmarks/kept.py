"""What is kept of a document: the model of `compare.py`'s needle table reads a page that nobody trained on.

python benchmarks/kept.py [--device cuda] [--results folder]

Trains "successive halving" with k = 8 and seed 0, as the table does, on the token vectors of frozen MiniLM (computed
once, four minutes). The page was written for this: software documentation with two sentences of news inside. Writes
benchmarks/results/kept.json, which pictures.py draws.
"""

import torch
from compare import Frozen
from datasets import ClassLabel, Dataset, Features, Value
from frozen import Classifier, Split, encode, fit, predict
from record import CommandLine, resume, save
from tqdm.auto import tqdm
from variants import VARIANTS

from shtopk.models import default_encoder, load_tokenizer
from shtopk.tasks import bbc

K, SEED = 8, 0
SMALLEST = 1e-3  # a token of less weight is not listed
TOPIC = "sports"
TEXT = """\
The client reads its settings from a file in the working directory. Each of them can be overridden by an \
environment variable of the same name in capital letters. When the server closes a connection, the request is \
sent again after a short pause, three times at most. The captain lifted the cup on Saturday night after her \
side came back from two goals down and won the final on penalties. The goalkeeper, in her first match of the \
season, saved three of them. Responses are kept on disk until they expire; pass refresh=True to ask the server \
anyway. A call returns a dictionary with the keys status, headers and body. A timeout holds for the whole \
call, not for a single attempt, and an error of the server raises an exception that carries the response."""


def trained(frozen: Frozen) -> Classifier:
    """The model of the table."""
    (variant,) = (variant for variant in VARIANTS if variant.name == "successive halving")
    torch.manual_seed(SEED)
    train = frozen.splits["train"]
    classifier = Classifier(train.hidden_states.shape[-1], frozen.classes, K, variant).to(frozen.device)
    fit(classifier, train, SEED, variant.scorer_learning_rate)
    return classifier


def encoded(text: str, label: str, device: torch.device) -> Split:
    features = Features({"text": Value("string"), "label": ClassLabel(names=bbc.LABELS)})
    rows = Dataset.from_dict({"text": [text], "label": [label]}, features)
    fields = encode(rows, default_encoder(), device, "encode the page")
    return Split(**{name: tensor.to(device) for name, tensor in fields.items()})


@torch.inference_mode()
def read(classifier: Classifier, text: str, label: str, device: torch.device) -> dict:
    """The tokens that were kept, with their weights and places in the text, and the class."""
    classifier.eval()
    split = encoded(text, label, device)
    hidden_states, mask, evidence = split.batch(torch.tensor([0], device=device))
    hidden_states = hidden_states.float()
    chosen = classifier.pooling(hidden_states, mask).assignment
    probabilities = classifier.classify(classifier.pool(hidden_states, mask, evidence)[0]).softmax(-1)[0]
    tokens = load_tokenizer(default_encoder())(text, return_offsets_mapping=True)
    words = tokens.tokens()
    kept = [
        {"token": words[i], "start": tokens.offset_mapping[i][0], "end": tokens.offset_mapping[i][1], "weight": weight}
        for i, weight in enumerate(chosen.weights[0].tolist())
        if weight >= SMALLEST
    ]
    best = int(probabilities.argmax())
    return {
        "text": text,
        "topic": label,
        "tokens": len(words),
        "kept": kept,
        "class": bbc.LABELS[best],
        "probability": probabilities[best].item(),
    }


def main() -> None:
    arguments = CommandLine(__doc__).parse_args()
    path = arguments.results / "kept.json"
    record = resume(path, arguments.device, anew=True, k=K, seed=SEED)
    frozen = Frozen("needle", torch.device(arguments.device))
    classifier = trained(frozen)
    test = frozen.splits["test"]
    predictions, share = predict(classifier, test)
    record["accuracy"] = (predictions == test.labels).float().mean().item()  # as in the table
    record["evidence_share"] = share
    record["runs"] = [read(classifier, TEXT, TOPIC, frozen.device)]
    save(record, path)
    for one in record["runs"][0]["kept"]:
        tqdm.write(f"{one['weight']:.3f} {one['token']}")
    tqdm.write(f"{record['runs'][0]['class']} {record['runs'][0]['probability']:.3f}")


if __name__ == "__main__":
    main()
