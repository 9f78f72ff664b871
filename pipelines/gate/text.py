"""Is a text words and numbers, or data written in letters?

Data in base64, hexadecimal, base85 or any other alphabet has no words: its runs of letters and digits mix cases and kinds, its
letters follow one another evenly, its ideographs hardly repeat. The rules look at the alphabet, not for a known encoding, since
those have no end. Identifiers and digests are let pass where each stands among words, up to MAX_ID characters.
Pure.
"""

import itertools
import math
import re
import unicodedata
from collections import Counter

MAX_ID = 64  # characters of one run of letters and digits
SHORT = 256  # letters and digits below which a text says too little to judge as a whole
ODD_SHARE = 0.35  # of letters and digits that are in no word and no number
ENOUGH_LETTERS = 2000
EVEN = 3.9  # bits by which a letter is unknown when the one before is known; languages have 3.0 to 3.6, 16 even letters 4
ENOUGH_WORDS = 300  # of four letters and more
NEW_WORDS = 0.95  # share of words that come once or for the first time; prose has about half
ENOUGH_SIGNS = 1000
FRESH = 0.6  # share of ideographs that are new, of the first 1,000; Chinese prose has about 0.4
BLANKS = 0.7
MANY_SIGNS, KINDS_OF_SIGNS, KINDS_OF_SHORT = 0.4, 15, 60  # prose has 5 % signs, source code 30 % of some 25 kinds
MANY_LETTERS = 5.8  # bits of a letter; alphabets have at most 5, two of them together 5.5
MOST_SELECTORS = 8
ENOUGH_MARKS, EVEN_MARKS, MOST_MARKS = 64, 3.4, 24  # accents; Vietnamese has 8 kinds, of less than 3 bits together
_SELECTOR = re.compile("[\ufe00-\ufe0d\U000e0100-\U000e01ef]")
_MARK = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]")
_SYLLABLES = 0x1100  # from here on, scripts write syllables and words, not letters
_RUN = re.compile(r"[^\W_]+")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_DIGEST = re.compile(r"(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})\Z")
_VOWEL = re.compile(r"[aeiouy]", re.IGNORECASE)


def why_not_words(text: str) -> str:
    """Why a text cannot pass as words and numbers; "" if it can."""
    kinds: Counter[str] = Counter()
    for run in _RUN.findall(text):
        if len(run) > MAX_ID and run.isascii():
            return f"a run of {len(run)} letters and digits"
        kinds[_kind(run)] += len(run)
    if reason := _why_not_marks(text):
        return reason
    told = kinds["word"] + kinds["number"] + kinds["odd"]
    if told >= SHORT and kinds["odd"] > ODD_SHARE * told:
        return "its letters and digits form no words"
    if kinds["digest"] > max(MAX_ID, 2 * told):
        return "it is digests, or data in hexadecimal"
    if told >= SHORT and (reason := _why_not_signs(text)):
        return reason
    words = [run.lower() for run in _RUN.findall(text) if len(run) >= 4 and run.isalpha() and run.isascii()]
    if len(words) >= ENOUGH_WORDS and len(set(words)) > NEW_WORDS * len(words):
        return "its words hardly repeat"
    return _why_not_letters(text)


def _why_not_signs(text: str) -> str:
    """Encodings with as many signs as letters, such as uuencode and base85."""
    seen = [char for char in text if not char.isspace()]
    signs = [char for char in seen if char.isascii() and not char.isalnum()]
    if len(signs) > MANY_SIGNS * len(seen) and len(set(signs)) >= KINDS_OF_SIGNS:
        return "it is signs rather than words"
    short = [run for run in _RUN.findall(text) if len(run) <= 2 and not run.isdigit()]
    if sum(map(len, short)) > MANY_SIGNS * len(seen) and len(set(short)) > KINDS_OF_SHORT:
        return "it is single letters rather than words"
    return ""


def _why_not_marks(text: str) -> str:
    """Signs that change how the letter before them looks, or nothing at all: bytes can be written in them."""
    selectors = set(_SELECTOR.findall(text))
    if len(selectors) > MOST_SELECTORS:
        return f"{len(selectors)} kinds of variation selectors"
    marks = Counter(_MARK.findall(text))
    if sum(marks.values()) >= ENOUGH_MARKS and (_entropy(marks) > EVEN_MARKS or len(marks) > MOST_MARKS):
        return "its accents follow one another as evenly as data"
    return ""


def _kind(run: str) -> str:
    if not run.isascii():
        return "word"  # judged by `_why_not_letters`
    if run.isdigit():
        return "number" if len(run) <= 20 else "odd"
    if _DIGEST.match(run):
        return "digest"
    if not run.isalpha():
        return "odd"
    words = _WORD.findall(run)
    whole = sum(map(len, words)) == len(run) and len(run) >= 3 * len(words)
    natural = all(len(word) <= 24 and (len(word) < 5 or _VOWEL.search(word)) for word in words)
    return "word" if (whole or len(run) <= 2) and natural else "odd"


def _why_not_letters(text: str) -> str:
    """By how often letters, signs and blanks come."""
    if len(text) >= ENOUGH_LETTERS:
        blanks = sum(char.isspace() for char in text)
        if blanks > BLANKS * len(text):
            return "it is mostly blanks"
        if _surprise("".join(char for char in text.lower() if "a" <= char <= "z" or char == " ")) > EVEN:
            return "its letters follow one another as evenly as data"
    letters = [char for char in text.lower() if char.isalpha() and ord(char) < _SYLLABLES]
    if len(letters) >= SHORT and _entropy(Counter(letters)) > MANY_LETTERS:
        return "its letters are those of no script"
    others = [char for char in text if ord(char) > 0x2FF]
    if len(others) >= SHORT:
        signs = [char for char in others if unicodedata.category(char)[0] in "SC"]
        if len(signs) > ODD_SHARE * len(others):
            return "it is mostly signs that are no letters"
    if len(others) >= ENOUGH_SIGNS and len(set(others[:ENOUGH_SIGNS])) > FRESH * ENOUGH_SIGNS:
        return "its letters hardly repeat"
    return ""


def _entropy(counts: Counter[str]) -> float:
    total = sum(counts.values())
    return -sum(count / total * math.log2(count / total) for count in counts.values())


def _surprise(letters: str) -> float:
    """Entropy in bits of a letter given the one before it; 0 for few letters."""
    if len(letters) < ENOUGH_LETTERS:
        return 0.0
    pairs = Counter(itertools.pairwise(letters))
    firsts = Counter(letters[:-1])
    total = len(letters) - 1
    return -sum(count / total * math.log2(count / firsts[first]) for (first, _), count in pairs.items())
