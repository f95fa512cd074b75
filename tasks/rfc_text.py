"""The text of an RFC as prose: no page breaks, no boilerplate, no abstract, a paragraph on a line."""

import re
import textwrap
from collections import Counter
from itertools import pairwise

Block = list[str]  # lines without an empty one between them

_NUMBER = r"(?:(?:appendix\s+)?(?:\d{1,3}|[A-Z])(?:\.\d+)*[.:)]?|[ivx]+\.)"  # of a section: 1, 1.2., A.1, Appendix B:
_NUMBERED = re.compile(rf"\s*{_NUMBER}\s+\S", re.IGNORECASE)
_PERSON = r"(?:author|editor|chair)(?:'s|s'|\(s\)'?|s)?"
_DROPPED = re.compile(
    rf"\s*(?:{_NUMBER}\s+)?(?:"
    r"(?:table of )?contents|abstract|status of (?:this|the) (?:memo|document|rfc)|disclaimer(?: of validity)?|"
    r"(?:full )?copyright(?: notices?| statements?)?(?: and licen[cs]e(?: notice)?)?|"
    r"intellectual property(?: rights)?(?: statements?| notices?| considerations)?|"
    rf"{_PERSON}(?: and {_PERSON})? (?:contact )?(?:address(?:es)?|information)"
    r")\s*[.:]?\s*",
    re.IGNORECASE,
)
_FOOTER = re.compile(r"\[\s*page\s*[\divxlc-]*\s*\]$", re.IGNORECASE)
_HEADER = re.compile(r"\s*(?:RFC[ -]?\d+\b.*\d{4}|.{30,}\bRFC[ -]?\d+|\s{20,}[\w ]*\w{3} \d{4})$")
_FRONT = re.compile(
    r"network working group|request for comments|internet engineering task force|issn: 2070|\s*RFC[ :-]*\d",
    re.IGNORECASE,
)
# An entry of a list of contents ends in dots or a gap, and the number of a page.
_LEADER = re.compile(r"(?:\. ?){4,} *\d*$|\S {3,}\d{1,3}$")
_ITEM = re.compile(r"\s*(?:[-*+o•]|\(?(?:\d{1,2}|[a-zA-Z]|[ivx]+)[.)])\s+\S")
_SMALL_PRINT = re.compile(
    r"Funding\s+for\s+the\s+RFC\s+Editor|Copyright\s+\([Cc]\)\s+The\s+(?:Internet\s+Soc|IETF\s+Tr)"
)
_DRAWN = re.compile(r"\|.*\||\+[-=]|[-=]{4}|::=")  # a figure, a table or code
_THANKS = re.compile(r"\s*(?:\S+\s+)?acknowledge?ments?:?\s*", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_RUN = 3  # words in a row that count as taken from the abstract
_GAP = 30  # words between two runs of one copy, at most
_FRONT_BLOCKS = 8  # at the start, among which the title is looked for
_COPY = 0.6  # share of the abstract's runs that makes a passage a copy


def clean(text: str, title: str, abstract: str) -> str:
    """An RFC, published in pages of lines, as a model should read it.

    That is the title, which may be empty, then headings and paragraphs with an empty line between them. The abstract
    is left out.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " ").expandtabs()
    text = re.sub(r".\x08", "", text)  # printed twice on one spot to look bold
    blocks = _without_front(_blocks(_without_page_breaks(text)), title)
    body = "\n\n".join(map(_reflow, _without_boilerplate(blocks)))
    return f"{title}\n\n{without_copy(body, abstract)}".strip()


def unwrap(lines: Block) -> str:
    """Join lines to one. A hyphen or a slash at the end of a line is part of the word."""
    text = "\n".join(" ".join(line.split()) for line in lines)
    return re.sub(r"(?<=\w[-/])\n(?=\w)", "", text).replace("\n", " ").strip()


def without_copy(text: str, abstract: str) -> str:
    """The text without passages that repeat most of the abstract, perhaps reworded. Single sentences may stay."""
    wanted, found = ([word.lower() for word in _WORD.findall(words)] for words in (abstract, text))
    # Most texts hold no copy, as a search for a third of the runs shows in a fraction of the time.
    haystack, probes = " ".join(found), [" ".join(wanted[i : i + _RUN]) for i in range(0, len(wanted), _RUN)]
    if sum(probe in haystack for probe in probes) < _COPY / 2 * len(probes):
        return text
    runs = set(_runs(wanted))
    passages: list[list[int]] = []
    for i in (i for i, run in enumerate(_runs(found)) if run in runs):
        if passages and i - passages[-1][-1] <= _GAP + _RUN:
            passages[-1].append(i)
        else:
            passages.append([i])
    copies = [
        (p[0], p[-1] + _RUN) for p in passages if len({*_runs(found[p[0] : p[-1] + _RUN])} & runs) >= _COPY * len(runs)
    ]
    places = [word.span() for word in _WORD.finditer(text)] if copies else []
    for first, last in reversed(copies):
        start, end = places[first][0], places[last - 1][1]
        text = text[:start].rstrip(" \t\"'([") + "\n\n" + text[end:].lstrip(" \t\n.,;:!?\"')]")
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _runs(words: list[str]) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(_RUN)), strict=False))


def _without_page_breaks(text: str) -> list[str]:
    """The lines without headers and footers. A paragraph on two pages is joined."""
    pages: list[Block] = [[]]
    for line in text.split("\n"):
        before, *after = map(str.rstrip, line.split("\f"))
        if before.endswith("]") and _FOOTER.search(before):
            pages.append([])
        elif before or not after:
            pages[-1].append(before)
        for part in after:
            pages.append([part])
    pages = [page for page in map(_trimmed, pages) if page]
    tops = Counter(_alike(page[0]) for page in pages)
    ends = Counter(_alike(page[-1]) for page in pages)
    lines: list[str] = []
    for number, page in enumerate(pages):
        repeated = tops[_alike(page[0])] >= 3
        while page and number and (repeated or _HEADER.match(page[0])):
            page, repeated = _trimmed(page[1:]), False
        if page and ends[_alike(page[-1])] >= 3:
            page = _trimmed(page[:-1])
        if page:
            if lines and not _goes_on(lines[-1], page[0]):
                lines.append("")
            lines += page
    return lines


def _alike(line: str) -> str:
    """A line without its numbers, which is the same for the headers of all pages."""
    return " ".join(re.sub(r"\d+", "", line).split()) or line


def _goes_on(line: str, following: str) -> bool:
    """Whether the last line of a page and the first line of the next belong to one paragraph."""
    if re.search(r"[.:;!?][\"')\]]*$", line) or _ITEM.match(following):
        return False
    return following.lstrip()[:1].islower() or (_indent(line) == _indent(following) and len(line) > 50)


def _trimmed(page: Block) -> Block:
    """The page without empty lines at its top and its end."""
    full = [i for i, line in enumerate(page) if line]
    return page[full[0] : full[-1] + 1] if full else []


def _blocks(lines: list[str]) -> list[Block]:
    """The paragraphs. The heading of a section to drop is a block of its own, even if its text begins on the next
    line.
    """
    blocks: list[Block] = [[]]
    for line in lines:
        if not line:
            blocks.append([])
        elif len(line) < 60 and _DROPPED.fullmatch(line):
            blocks += [[line], []]
        else:
            blocks[-1].append(line)
    return [block for block in blocks if block]


def _without_front(blocks: list[Block], title: str) -> list[Block]:
    """The blocks after the title. Authors, date and status stand before it."""
    words = set(_WORD.findall(title.lower()))
    first = 0
    for i, block in enumerate(blocks[:_FRONT_BLOCKS]):
        found = set(_WORD.findall(unwrap(block).lower()))
        if words and len(words & found) >= 0.7 * max(len(words), len(found)):
            return blocks[i + 1 :]
        if any(map(_FRONT.match, block)):
            first = i + 1
    return blocks[first:]


def _without_boilerplate(blocks: list[Block]) -> list[Block]:
    """The blocks without boilerplate sections, lists of contents and small print."""
    kept: list[Block] = []
    i = 0
    longest = max(1000, sum(map(_words, blocks)) // 5)  # a longer section is no boilerplate
    while i < len(blocks):
        block, i = blocks[i], i + 1
        if _DROPPED.fullmatch(block[0]):
            end = _section_end(blocks, i - 1)
            i = end if sum(map(_words, blocks[i:end])) <= longest else i
        elif _SMALL_PRINT.search("\n".join(block)):
            while kept and _THANKS.fullmatch(kept[-1][0]):
                kept.pop()
        elif sum(map(_is_listed, block)) < max(3, len(block) / 2):
            kept.append(block)
    return kept


def _words(block: Block) -> int:
    return sum(len(line.split()) for line in block)


def _section_end(blocks: list[Block], heading: int) -> int:
    """The index of the first block after a section, where indentation ends or the next heading stands."""
    left, end = _indent(blocks[heading][0]), heading + 1
    body = next((_indent(b[0]) for b in blocks[end : end + 2] if len(b) > 1 or len(b[0].split()) > 2), 0)
    outside = left if body > left else body - 1
    while end < len(blocks) and not _DROPPED.fullmatch(blocks[end][0]):
        listed = any(map(_is_listed, blocks[end]))
        if not listed and (_indent(blocks[end][0]) <= outside or _is_heading(blocks[end], body)):
            break
        end += 1
    return end


def _is_listed(line: str) -> bool:
    return (line[-1].isdigit() or line[-1] == ".") and bool(_LEADER.search(line))


def _is_heading(block: Block, body: int) -> bool:
    line = block[0].strip()
    if len(block) > 1 or _indent(block[0]) > body or len(line) > 70 or re.search(r"[.,;:]$", line):
        return False
    return bool(_NUMBERED.match(line)) or (line[:1].isupper() and len(line.split()) <= 6 and not _indent(block[0]))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _reflow(block: Block) -> str:
    """A paragraph on one line, each item of a list on its own; figures, tables and code as they are."""
    if len(block) == 2 and not block[1].strip(" -=~_"):  # a heading and the line under it
        return block[0].strip()
    items: list[Block] = []
    for line in block:
        if items and not _ITEM.match(line):
            items[-1].append(line)
        else:
            items.append([line])
    if all(map(_is_prose, items)):
        return "\n".join(map(unwrap, items))
    return textwrap.dedent("\n".join(block))


def _is_prose(lines: Block) -> bool:
    """Whether the line breaks only wrap the text and mean nothing."""
    if len(lines) == 1:
        return True
    if len({_indent(line) for line in lines[1:]}) > 1 or _DRAWN.search("\n".join(lines)):
        return False
    if lines[0].lstrip().startswith("[") and _indent(lines[1]) > _indent(lines[0]):  # an entry of the references
        return True
    full = sum(len(line) + len(following.split()[0]) >= 58 for line, following in pairwise(lines))
    apart = sum("    " in line.lstrip() for line in lines[1:])
    return full >= 0.7 * (len(lines) - 1) and apart <= 0.3 * len(lines)
