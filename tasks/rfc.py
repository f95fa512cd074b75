"""RFCs and their abstracts: long documents to summarise, from a folder of the RFC Editor's files.

`rfcN.json` holds the abstract and says which RFCs it replaces; `rfcN.txt` or `rfcN.txt.gz` holds the text. They may
lie in sub-folders. `make rfcs` fetches such a folder on Debian.
"""

from __future__ import annotations

import gzip
import html
import json
import re
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tqdm.auto import tqdm

from shtopk.tasks.arguments import DataArguments
from shtopk.tasks.baselines import BASELINES
from shtopk.tasks.cache import cached
from shtopk.tasks.duplicates import Similar
from shtopk.tasks.rfc_text import clean, unwrap
from shtopk.tasks.split import SPLITS, stratified_split
from shtopk.tasks.table import to_datasets
from shtopk.tasks.task import Summarization

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import DatasetDict

ABSTRACT = (20, 400)  # words
LEAST_DOCUMENT = 300  # words
ALIKE = 0.6  # Jaccard similarity of words at which two abstracts count as one
HELD_OUT = 300  # documents of validation and test each, or a tenth where there are fewer than ten times as many

_NAME = re.compile(r"rfc0*([1-9]\d*)\.(json|txt|txt\.gz)")
_STRANGE = re.compile(r"[\x01-\x07\x0e-\x1f\x7f-\x9f\ufffd]")
_TAG = re.compile(r"</?(?:p|br|div|span|ul|ol|li|dl|dt|dd|em|strong|tt|code|sub|sup|[abitu])(?:\s[^<>]*)?/?>", re.I)
_LIST = re.compile(r"requests? for comments? (?:summary|reference guide)", re.I)
# The status says nothing about the subject. Texts lose theirs as boilerplate.
_STATUS = re.compile(
    r"\[(?:standards[ -]*tra?ck|proposed standard)\]|"
    r"\b(?:this|it)(?: memo| document| rfc)? (?:"
    r"provides information for the internet community|does not specify an internet standard(?: of any kind)?|"
    r"is not an internet standards track specification; it is published for informational purposes|"
    r"defines an? (?:experimental protocol|historic document) for the internet community|"
    r"specifies an internet best current practices for the internet community, "
    r"and requests discussion and suggestions for improvements|documents an internet best current practice"
    r")\.",
    re.I,
)


class Pair(NamedTuple):
    number: int
    text: str
    summary: str


class Skipped(Exception):
    """A document that cannot be used; the message is the reason, for the report."""


def find(folder: Path) -> dict[int, dict[str, Path]]:
    """{RFC number: {"json" and "txt": file}}, in the order of the numbers.

    Of several files the first by path counts.
    """
    if not folder.is_dir():
        raise ValueError(
            f"expected a folder of rfcN.json and rfcN.txt, found none at {folder}; `make rfcs` fetches one"
        )
    files: dict[int, dict[str, Path]] = {}
    for path in sorted(folder.rglob("rfc*")):
        if match := _NAME.fullmatch(path.name):
            files.setdefault(int(match[1]), {}).setdefault(match[2].removesuffix(".gz"), path)
    return dict(sorted(files.items()))


def check(folder: Path) -> None:
    """Raise ValueError, in one line, for a folder without a single pair of files. No file is read."""
    files = find(folder)
    if not any(len(kinds) == 2 for kinds in files.values()):
        got = f"{sum(map(len, files.values()))} such files, none of which belong together" if files else "no such file"
        raise ValueError(f"expected rfcN.json beside rfcN.txt or rfcN.txt.gz in {folder}, got {got}; try `make rfcs`")


def read(folder: Path) -> DatasetDict:
    """Splits with the columns "text" and "summary", the same for the same files in whatever order.

    RFCs that replace each other, or have nearly the same abstract, stay together. Unusable ones are counted on stderr.

    Raises:
        ValueError: no documents, or too few to split.
    """
    from scipy.cluster.hierarchy import DisjointSet  # late: it takes long to import

    check(folder)
    files, pairs = find(folder), []
    groups = DisjointSet(files)
    skipped: Counter[str] = Counter()
    for number, kinds in tqdm(files.items(), desc="read RFCs"):
        try:
            facts = _facts(kinds)
            for other in _replaced(facts):
                groups.add(other)
                groups.merge(number, other)
            pairs.append(_pair(number, facts, kinds))
        except Skipped as reason:
            skipped[str(reason)] += 1
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in skipped.most_common())
    print(
        f"rfc: {len(pairs):,} of {len(files):,} documents used" + (f"; {reasons}" if reasons else ""), file=sys.stderr
    )
    alike = Similar([set(re.findall(r"\w+", pair.summary.lower())) for pair in pairs], ALIKE)
    for i, pair in enumerate(pairs):
        for j in alike.to(i):
            groups.merge(pair.number, pairs[j].number)
    held_out = min(HELD_OUT, len(pairs) // 10)
    if not held_out:
        raise ValueError(f"expected at least 10 usable RFCs in {folder}, got {len(pairs)}; the line above says why")
    shares = {name: held_out / len(pairs) for name in ("test", "validation")}
    keys = [f"rfc{min(groups.subset(pair.number))}" for pair in pairs]
    rows = stratified_split(["rfc"] * len(pairs), keys, shares)
    return to_datasets({name: [pairs[i][1:] for i in rows[name]] for name in SPLITS}, "summary")


def _facts(kinds: dict[str, Path]) -> dict:
    if "json" not in kinds:
        raise Skipped("without JSON")
    try:
        facts = json.loads(kinds["json"].read_bytes())
        json.dumps(facts, ensure_ascii=False).encode()  # fails for a lone surrogate, which Arrow cannot hold
    except (OSError, ValueError, RecursionError):
        raise Skipped("with broken JSON") from None
    if not isinstance(facts, dict):
        raise Skipped("with broken JSON")
    return facts


def _replaced(facts: dict) -> list[int]:
    """The numbers of the RFCs that this one replaces or is replaced by, whether or not the folder has them."""
    names = f"{facts.get('obsoletes')} {facts.get('obsoleted_by')}"  # lists of names, some of them no RFC's
    return [int(number) for number in re.findall(r"\bRFC\s*(\d+)", names)]


def _pair(number: int, facts: dict, kinds: dict[str, Path]) -> Pair:
    abstract = facts.get("abstract")
    if not isinstance(abstract, str) or not abstract.strip():
        raise Skipped("without an abstract")
    if "txt" not in kinds:
        raise Skipped("without text")
    summary = plain(abstract)
    words = len(summary.split())
    if not ABSTRACT[0] <= words <= ABSTRACT[1]:
        raise Skipped(f"with an abstract of under {ABSTRACT[0]} or over {ABSTRACT[1]} words")
    title = " ".join(str(facts.get("title") or "").split())
    if _LIST.match(title):
        raise Skipped("that list the abstracts of others")
    text = clean(_text(kinds["txt"]), title, summary)
    if len(text.split()) < LEAST_DOCUMENT:
        raise Skipped(f"of under {LEAST_DOCUMENT} words")
    return Pair(number, text, summary)


def plain(abstract: str) -> str:
    """An abstract on one line, without tags, entities and status."""
    text = html.unescape(_TAG.sub("\n", abstract))
    return unwrap([_STATUS.sub(" ", unwrap(text.splitlines()))])


def _text(path: Path) -> str:
    """The text of a file, without padding and stray control codes.

    It is UTF-8, or else Windows-1252 (some old RFCs).
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        raise Skipped("with unreadable text") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    text, strange = _STRANGE.subn("", text.replace("\0", ""))
    if strange > 0.01 * len(text):
        raise Skipped("with binary text")
    return text


def _folder(arguments: DataArguments) -> Path:
    if not arguments.rfc_folder:
        raise ValueError("expected an rfc_folder for the task rfc, got none; `make rfcs` fetches data/rfc")
    return Path(arguments.rfc_folder)


def _read(arguments: DataArguments) -> DatasetDict:
    folder = _folder(arguments)
    files = [path for kinds in find(folder).values() for path in kinds.values()]
    sources = "".join(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in files)
    return cached("rfc", sources, lambda work: read(folder))


RFC = Summarization(
    name="rfc",
    description="RFCs, the Internet's technical notes and standards, without their abstracts, which are the summaries",
    licence="The RFCs are their authors' and the IETF Trust's, which lets them be copied in full but not changed: "
    "train on them, and do not publish the cleaned texts",
    read=_read,
    check_source=lambda arguments: check(_folder(arguments)),
    fields=("rfc_folder",),
    leads=BASELINES,
)
