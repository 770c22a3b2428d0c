"""What an instruction asks for, in two words: the histogram by which a data set's variety is seen and capped."""

import re


def word_set(words: str) -> frozenset[str]:
    """The words of a list written as running text."""
    return frozenset(words.split())


REQUEST_VERBS = word_set(
    """
    act advise analyse analyze answer argue arrange assess assume brainstorm break build calculate categorise categorize characterise
    characterize choose cite clarify classify collect comment compare compile complete compose compute construct convert correct
    create critique debate deduce define demonstrate derive describe design detail determine develop devise differentiate
    discuss distinguish draft draw edit elaborate enumerate estimate evaluate examine expand explain explore express extract
    figure fill find fix forecast formulate generate give guide help highlight identify illustrate imagine implement improve infer inform
    interpret introduce investigate invent justify let list make mention name narrate offer organise organize outline paraphrase
    pick plan point predict prepare present produce proofread propose prove provide rank rate reason recap recite recommend
    recount reflect rephrase report research respond retell review revise rewrite share show simplify simulate sketch solve
    specify state suggest summarise summarize talk teach tell trace transcribe translate turn use verify walk write
    """
)
"""Verbs that an instruction begins with."""

QUESTION_WORDS = word_set("what who whom whose when where why which how")
AUXILIARIES = word_set("am is are was were do does did can could may might must shall should will would has have had")

_POLITE = re.compile(
    r"^(?:please|kindly|hey|hi|hello|so|now|then|and|also|well)\b[\s,]*"
    r"|^(?:can|could|would|will) you(?: please| kindly)?\s+(?=[a-z])"
    r"|^i(?: would|'d)? (?:want|like|need)(?: you)? to (?:know|learn|understand)\b[\s,:]*"
    r"|^i(?: would|'d)? (?:want|like|need) you to\s+"
)
_VERBS = {
    "analyse": "analyze",
    "summarise": "summarize",
    "categorise": "categorize",
    "characterise": "characterize",
    "organise": "organize",
}
_PHRASAL = (("tell", "me"), ("give", "me"), ("show", "me"), ("teach", "me"), ("walk", "me"), ("help", "me"))
_LEADS = word_set(
    """
    a an the some any this that these those my your our their his her its all both each every several various many much more
    most me us you i we they he she it one two three four five six seven eight nine ten about on of for to in into with by from
    at as and or not between among through over up down out briefly exactly actually really usually generally typically often
    ever best main key major different important following way ways kind kinds type types sort sorts role history importance
    meaning purpose concept process difference differences detailed short brief simple good new steps step reasons reason causes
    cause effects effect details example examples life someone somebody people person there how what who when where why which
    whether if
    """
)
_FILLERS = frozenset(
    _LEADS
    | AUXILIARIES
    | {"be", "been", "being", "get", "go", "happen", "happened", "become", "became", "mean", "work", "works", "cause", "caused"}
)
_GENRES = word_set("overview description explanation summary account information list guide article essay paragraph story report")
_WRITING = word_set("write create compose draft make generate produce prepare")
"""Verbs whose object is the kind of text itself: "write article", but "give list of rivers" is "give river"."""
_BREAKS = word_set(
    """
    of in on at for to with by from as and or that which who when where while because during since after before into is are was
    were
    """
)
_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*|[.?!;:,]")


def topic(instruction: str) -> str:
    """Verb and object of an English instruction: "explain volcano", "what photosynthesis", "how make bread".

    A guess from word order without a model: the leading verb or question word, then the head (last noun) of the first noun
    phrase that says something. Good enough for a histogram and a cap, not for grammar. "other" when there is no word.
    """
    text = instruction.lower().replace("’", "'")
    for _ in range(3):
        text = _POLITE.sub("", text.strip(), count=1)
    words = _WORD.findall(text)
    if not any(word[0].isalnum() for word in words):
        return "other"
    lead, rest = _lead(words)
    fillers = _FILLERS if lead in _WRITING else _FILLERS | _GENRES
    if lead in {"who", "what", "which"} and rest and rest[0].endswith("ed"):
        rest = rest[1:]
    return f"{lead} {_object(rest, fillers, num_words=1 if lead == 'whether' else 4)}".strip()


def _lead(words: list[str]) -> tuple[str, list[str]]:
    """The request itself, and the words after it. A question that opens with a clause ("In 1900, who …") begins at its question word."""
    first = words[0]
    if first in REQUEST_VERBS:
        rest = words[2:] if tuple(words[:2]) in _PHRASAL else words[1:]
        return _VERBS.get(first, first), rest
    if first in QUESTION_WORDS or first in AUXILIARIES:
        return _question(words)
    for place, word in enumerate(words):
        if word in QUESTION_WORDS:
            return _question(words[place:])
    return "other", words


def _question(words: list[str]) -> tuple[str, list[str]]:
    """ "how do i make bread" ▶ "how make"; "what is rain" ▶ "what"; "does tea keep" ▶ "whether"."""
    first, rest = words[0], words[1:]
    if first in AUXILIARIES:
        return "whether", rest
    if first == "how" and rest and rest[0] in {"many", "much", "long", "far", "old", "often", "big", "large", "tall", "high", "deep"}:
        return f"how-{rest[0]}", rest[1:]
    if first == "how" and len(rest) > 2 and rest[0] in AUXILIARIES and rest[1] in {"i", "you", "we", "one", "people"}:
        return f"how {rest[2]}", rest[3:]
    if first == "how" and len(rest) > 1 and rest[0] == "to":
        return f"how {rest[1]}", rest[2:]
    return first, rest


def _object(words: list[str], fillers: frozenset[str], num_words: int) -> str:
    """Head of the first noun phrase: skip what says nothing, then the last word before a preposition, a verb or a comma.

    A plural ends the phrase too: in "how volcanoes form" the next word is a verb.
    """
    start = next((i for i, word in enumerate(words) if word[0].isalnum() and _bare(word) not in fillers), None)
    if start is None:
        return ""
    head = words[start]
    for word in words[start + 1 : start + num_words]:
        ended = not word[0].isalnum() or word in _BREAKS or word in fillers or (word.endswith("ly") and len(word) > 4)
        if ended or _singular(head) != head:
            break
        head = word
    return _singular(_bare(head))


def _bare(word: str) -> str:
    return word.removesuffix("'s").removesuffix("'")


def _singular(noun: str) -> str:
    """A light lemma: plural endings off, and nothing else."""
    if len(noun) <= 3 or noun.endswith(("ss", "us", "is", "ics", "news")):
        return noun
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    if noun.endswith(("ches", "shes", "xes", "sses", "zes", "oes")):
        return noun[:-2]
    return noun.removesuffix("s")
