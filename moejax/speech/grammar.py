"""A small parallel grammar: English sentences of about 140 words with their German translations.

The German side is built from gender, case and verb position, not from word lists, so a recognised sentence has exactly
one correct reference and BLEU on it means something. Text carries no punctuation; English is lower case (ready for word
error rates), German keeps its capital nouns, umlauts and the sharp s.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Collection

from moejax.errors import BadValue
from moejax.speech.lexicon import (
    ADJECTIVES,
    DITRANSITIVE,
    INTRANSITIVE,
    MODALS,
    NOUNS,
    NOW,
    NUMBERS,
    PERSON,
    PREPOSITIONS,
    PRONOUNS,
    TRANSITIVE,
    Noun,
    Verb,
)

_ENDINGS = {
    "nom": {"m": "er", "f": "e", "n": "es", "p": "e"},
    "acc": {"m": "en", "f": "e", "n": "es", "p": "e"},
    "dat": {"m": "em", "f": "er", "n": "em", "p": "en"},
}
_THE = {
    "nom": {"m": "der", "f": "die", "n": "das", "p": "die"},
    "acc": {"m": "den", "f": "die", "n": "das", "p": "die"},
    "dat": {"m": "dem", "f": "der", "n": "dem", "p": "den"},
}


@dataclasses.dataclass(frozen=True)
class Phrase:
    """A noun phrase in both languages; `person` is 1s, 2s, 3s or p and decides the verb forms."""

    english: str
    german: str
    person: str = "3s"


def article(determiner: str, case: str, gender: str) -> str:
    """The German for the, a, my, this or every in a case (nom, acc, dat) and gender (m, f, n, p: plural)."""
    if determiner == "the":
        return _THE[case][gender]
    if determiner in ("this", "every"):
        return {"this": "dies", "every": "jed"}[determiner] + _ENDINGS[case][gender]
    # ein-words lose their ending in the masculine and neuter nominative and the neuter accusative
    bare = (case == "nom" and gender in "mn") or (case == "acc" and gender == "n")
    return {"a": "ein", "my": "mein"}[determiner] + ("" if bare else _ENDINGS[case][gender])


def adjective_ending(determiner: str | None, case: str, gender: str) -> str:
    """The ending a German adjective takes after `determiner` (None: after a bare number, the strong declension)."""
    if determiner is None:
        return _ENDINGS[case][gender]
    if case == "dat" or gender == "p" or (case == "acc" and gender == "m"):
        return "en"
    if determiner in ("a", "my"):
        return {"m": "er", "f": "e", "n": "es"}[gender]
    return "e"


def inflect(adjective: str, ending: str) -> str:
    """Adjective plus ending; a final -e is not doubled (müde, müden)."""
    return adjective.removesuffix("e") + ending


def decline(noun: Noun, case: str, plural: bool = False) -> str:
    """The German noun in its case: dative plurals take -n (not after -n, -s), der Junge is weak."""
    if not plural:
        return noun.german + ("n" if noun.german == "Junge" and case != "nom" else "")
    assert noun.german_plural is not None  # asked of nouns that have one
    return noun.german_plural + ("n" if case == "dat" and noun.german_plural[-1] not in "ns" else "")


def noun_phrase(noun: Noun, determiner: str, case: str, adjective: tuple[str, str] | None = None) -> Phrase:
    """A singular noun phrase: article, perhaps an adjective, noun."""
    first = adjective[0] if adjective else noun.english
    determiner_en = "an" if determiner == "a" and first[0] in "aeiou" else determiner
    english = [determiner_en, *([adjective[0]] if adjective else []), noun.english]
    german = [article(determiner, case, noun.gender)]
    if adjective:
        german.append(inflect(adjective[1], adjective_ending(determiner, case, noun.gender)))
    return Phrase(" ".join(english), " ".join([*german, decline(noun, case)]))


def counted_phrase(noun: Noun, number: str, case: str, adjective: tuple[str, str] | None = None) -> Phrase:
    """A counted plural: "three red apples" / "drei rote Äpfel"."""
    english = [number, *([adjective[0]] if adjective else []), noun.english_plural]
    german = [NUMBERS[number], *([inflect(adjective[1], adjective_ending(None, case, "p"))] if adjective else [])]
    return Phrase(" ".join(english), " ".join([*german, decline(noun, case, plural=True)]), "p")


def present(verb: Verb, person: str) -> tuple[str, str]:
    """(English, German) present-tense form."""
    return (verb.third if person == "3s" else verb.base), verb.present[PERSON[person]]


def past(verb: Verb, person: str) -> tuple[str, str]:
    """(English, German) past-tense form; never with "you", whose German past nobody says."""
    weak = verb.preterite.endswith("e")
    return verb.past, verb.preterite + (("n" if weak else "en") if person == "p" else "")


class _Speaker:
    """Draws phrases from one random stream; the templates below are its sentences."""

    def __init__(self, rng: random.Random):
        self.rng = rng

    def adjective(self, kind: str, chance: float) -> tuple[str, str] | None:
        """An adjective that suits the kind of noun (nobody is green), or None."""
        if self.rng.random() >= chance:
            return None
        return self.rng.choice(ADJECTIVES["any"] + ADJECTIVES["people" if kind == "people" else "things"])

    def thing(self, kind: str, case: str, determiners: str = "the the a my this", chance: float = 0.3) -> Phrase:
        if kind == "things" and "a" in determiners.split() and self.rng.random() < 0.15:
            noun = self.rng.choice([noun for noun in NOUNS[kind] if noun.english_plural])
            return counted_phrase(noun, self.rng.choice(list(NUMBERS)), case, self.adjective(kind, chance))
        return noun_phrase(
            self.rng.choice(NOUNS[kind]), self.rng.choice(determiners.split()), case, self.adjective(kind, chance)
        )

    def subject(self, chance: float = 0.25, you: bool = True) -> Phrase:
        draw = self.rng.random()
        if draw < 0.3:
            english = self.rng.choice([word for word in PRONOUNS if you or word != "you"])
            return Phrase(english, *PRONOUNS[english])
        if draw < 0.42:
            noun = self.rng.choice([noun for noun in NOUNS["people"] if noun.english_plural])
            return counted_phrase(noun, self.rng.choice(list(NUMBERS)), "nom", self.adjective("people", chance))
        return noun_phrase(
            self.rng.choice(NOUNS["people"]),
            self.rng.choice("the the a my this every".split()),
            "nom",
            self.adjective("people", chance),
        )

    def place(self) -> Phrase:
        preposition = self.rng.choice(list(PREPOSITIONS))
        where = noun_phrase(
            self.rng.choice(NOUNS["places"]), self.rng.choice(["the", "my"]), "dat", self.adjective("places", 0.2)
        )
        return Phrase(f"{preposition} {where.english}", f"{PREPOSITIONS[preposition]} {where.german}")


def _statement(say: _Speaker):
    subject, object_ = say.subject(), say.thing("things", "acc")
    english, german = present(say.rng.choice(TRANSITIVE), subject.person)
    when = say.rng.choice([None, None, *NOW])
    if when is None:
        return f"{subject.english} {english} {object_.english}", f"{subject.german} {german} {object_.german}"
    if when in ("today", "now"):
        if say.rng.random() < 0.5:  # a first adverb pushes the German subject behind the verb
            return (
                f"{when} {subject.english} {english} {object_.english}",
                f"{NOW[when]} {german} {subject.german} {object_.german}",
            )
        return (
            f"{subject.english} {english} {object_.english} {when}",
            f"{subject.german} {german} {NOW[when]} {object_.german}",
        )
    return (
        f"{subject.english} {when} {english} {object_.english}",
        f"{subject.german} {german} {NOW[when]} {object_.german}",
    )


def _doing(say: _Speaker):
    subject, where = say.subject(), say.place()
    english, german = present(say.rng.choice(INTRANSITIVE), subject.person)
    return f"{subject.english} {english} {where.english}", f"{subject.german} {german} {where.german}"


def _modal(say: _Speaker):
    subject, object_, verb = say.subject(0.2), say.thing("things", "acc", chance=0.3), say.rng.choice(TRANSITIVE)
    modal = say.rng.choice(list(MODALS))
    when = say.rng.choice(["", " tomorrow"])
    finite = MODALS[modal][PERSON[subject.person]]
    return (
        f"{subject.english} {modal} {verb.base} {object_.english}{when}",
        f"{subject.german} {finite}{' morgen' if when else ''} {object_.german} {verb.infinitive}",
    )


def _giving(say: _Speaker):
    subject, receiver = say.subject(0.1), say.thing("people", "dat", "the my", 0.15)
    object_ = say.thing("things", "acc", "a a this", 0.3)
    english, german = present(say.rng.choice(DITRANSITIVE), subject.person)
    return (
        f"{subject.english} {english} {receiver.english} {object_.english}",
        f"{subject.german} {german} {receiver.german} {object_.german}",
    )


def _negation(say: _Speaker):
    subject, object_, verb = (
        say.subject(0.2),
        say.thing("things", "acc", "the my this", 0.3),
        say.rng.choice(TRANSITIVE),
    )
    auxiliary = "does not" if subject.person == "3s" else "do not"
    return (
        f"{subject.english} {auxiliary} {verb.base} {object_.english}",
        f"{subject.german} {present(verb, subject.person)[1]} {object_.german} nicht",
    )


def _question(say: _Speaker):
    subject, object_, verb = say.subject(0.2), say.thing("things", "acc"), say.rng.choice(TRANSITIVE)
    auxiliary = "does" if subject.person == "3s" else "do"
    return (
        f"{auxiliary} {subject.english} {verb.base} {object_.english}",
        f"{present(verb, subject.person)[1]} {subject.german} {object_.german}",
    )


def _where(say: _Speaker):
    found = say.thing(say.rng.choice(["people", "things"]), "nom", "the my this", 0.5)
    return f"where is {found.english}", f"wo ist {found.german}"


def _who(say: _Speaker):
    english, german = present(say.rng.choice(TRANSITIVE), "3s")
    object_ = say.thing("things", "acc")
    return f"who {english} {object_.english}", f"wer {german} {object_.german}"


def _being(say: _Speaker):
    kind = say.rng.choice(["people", "things"])
    subject = say.thing(kind, "nom", "the my this", 0.2)
    if say.rng.random() < 0.4:
        said = say.adjective(kind, 1.0)
        assert said is not None  # at a chance of 1
        english, german = said
        negated = say.rng.random() < 0.4
        return (
            f"{subject.english} is {'not ' if negated else ''}{english}",
            f"{subject.german} ist {'nicht ' if negated else ''}{german}",
        )
    where = say.place()
    return f"{subject.english} is {where.english}", f"{subject.german} ist {where.german}"


def _yesterday(say: _Speaker):
    subject, object_ = say.subject(0.3, you=False), say.thing("things", "acc")
    english, german = past(say.rng.choice(TRANSITIVE), subject.person)
    if say.rng.random() < 0.5:
        return (
            f"yesterday {subject.english} {english} {object_.english}",
            f"gestern {german} {subject.german} {object_.german}",
        )
    return (
        f"{subject.english} {english} {object_.english} yesterday",
        f"{subject.german} {german} gestern {object_.german}",
    )


def _because(say: _Speaker):
    first, second = say.subject(0.0), say.subject(0.2)
    main, reason = say.rng.sample(INTRANSITIVE, 2)
    main_en, main_de = present(main, first.person)
    reason_en, reason_de = present(reason, second.person)
    return (
        f"{first.english} {main_en} because {second.english} {reason_en}",
        f"{first.german} {main_de} weil {second.german} {reason_de}",
    )


_TEMPLATES: dict[Callable, float] = {
    _statement: 3.0,
    _doing: 1.5,
    _modal: 1.5,
    _giving: 1.5,
    _negation: 1.0,
    _question: 1.0,
    _where: 0.3,
    _who: 0.5,
    _being: 1.0,
    _yesterday: 1.5,
    _because: 1.0,
}


def sample(
    n: int, seed: int, *, exclude: Collection[str] = (), words: tuple[int, int] = (3, 9)
) -> list[tuple[str, str]]:
    """`n` distinct sentences as (english, german), the same for the same arguments.

    No English sentence stands twice or is in `exclude`; `words` bounds the number of English words. Raises ValueError
    when the grammar does not hold that many sentences (it holds several hundred thousand).
    """
    say = _Speaker(random.Random(f"grammar {seed}"))
    taken, out, misses = set(exclude), [], 0
    templates, weights = list(_TEMPLATES), list(_TEMPLATES.values())
    while len(out) < n:
        english, german = say.rng.choices(templates, weights)[0](say)
        if english in taken or not words[0] <= len(english.split()) <= words[1]:
            misses += 1
            if misses > 1000 + 50 * n:
                raise BadValue(
                    f"the grammar gave {len(out)} new sentences of {words[0]}-{words[1]} words, asked for {n}"
                )
            continue
        taken.add(english)
        out.append((english, german))
    return out


def vocabulary() -> list[str]:
    """Every English word the grammar can say, sorted."""
    verbs = [form for verb in (*TRANSITIVE, *INTRANSITIVE, *DITRANSITIVE) for form in (verb.base, verb.third)]
    verbs += [verb.past for verb in TRANSITIVE]
    nouns = [form for kind in NOUNS.values() for noun in kind for form in (noun.english, noun.english_plural) if form]
    rest = "the a an my this every does do not where is who because yesterday tomorrow".split()
    return sorted(
        {
            *verbs,
            *nouns,
            *rest,
            *(word for kind in ADJECTIVES.values() for word, _ in kind),
            *PREPOSITIONS,
            *NUMBERS,
            *NOW,
            *PRONOUNS,
            *MODALS,
        }
    )
