"""Pronunciations: the dictionary first, letter rules for the rest, users' own above both."""

import numpy as np
import pytest

from retell.errors import UserError
from retell.phones import names, numbers
from retell.words import Lexicon, dictionary, guess, split


def test_split():
    assert split("Don’t stop -- it's 42%, “really”!") == ["don't", "stop", "it's", "four", "two", "really"]
    assert split(" ... ") == []


def test_dictionary_then_rules_then_own():
    lexicon = Lexicon(own={"retell": "R IY T EH L"})
    assert names(lexicon.say("Hello")) == ["HH", "AH", "L", "OW"]
    assert not lexicon.guessed
    assert names(lexicon.say("shazeering"))[0] == "SH" and "shazeering" in lexicon.guessed
    assert names(lexicon.say("retell")) == ["R", "IY", "T", "EH", "L"]
    phones, places = lexicon.say_all(["big", "house"])
    assert places == [(0, 3), (3, 6)] and len(phones) == 6


@pytest.mark.parametrize(
    ("word", "said"), [("phoning", "F AA N IH NG"), ("blake", "B L EY K"), ("zot", "Z AA T")]
)
def test_guess(word, said):
    assert guess(word) == said


def test_guesses_are_useful():
    """Phone errors of the letter rules on dictionary words; half of the phones would be no use as a first guess."""
    random = np.random.default_rng(0)
    words = [w for w in dictionary() if w.isalpha() and len(w) > 2]
    wrong = total = 0
    for word in random.choice(words, 300, replace=False):
        truth, said = dictionary()[str(word)].split(), guess(str(word)).split()
        row = np.arange(len(said) + 1)
        for i, phone in enumerate(truth, 1):
            line = [i]
            for j, other in enumerate(said, 1):
                line.append(min(row[j] + 1, line[-1] + 1, row[j - 1] + (phone != other)))
            row = np.array(line)
        wrong, total = wrong + row[-1], total + len(truth)
    assert wrong / total < 0.42


@pytest.mark.parametrize("bad", ["QX", "HH AH LL"])
def test_unknown_phones(bad):
    with pytest.raises(UserError, match="ARPAbet"):
        numbers(bad)


def test_words_without_letters_are_refused():
    with pytest.raises(UserError, match="retell pronounce"):
        Lexicon().say("日本")
