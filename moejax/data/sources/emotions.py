"""Acted emotional speech by the names of its files: RAVDESS, CREMA-D, Emo-DB. The label is the emotion, the speaker the
actor; none of them comes with folds, so a runner makes them of actors.
"""

import re
from collections.abc import Callable

from moejax.data.manifest import Utterance
from moejax.data.sources.sounds import audio_below
from moejax.errors import BadValue

RAVDESS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
_STATEMENTS = ("Kids are talking by the door.", "Dogs are sitting by the door.")
CREMAD = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
_CREMAD_SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
EMODB = {"W": "anger", "L": "boredom", "E": "disgust", "A": "fear", "F": "happiness", "T": "sadness", "N": "neutral"}
_EMODB_SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}


def ravdess(*, root: str) -> list[Utterance]:
    """RAVDESS speech (Livingstone and Russo 2018), 8 emotions, 24 actors: 03-01-EMOTION-INTENSITY-STATEMENT-TAKE-ACTOR.
    Sung and filmed files among them are passed over.
    """

    def parsed(modality, channel, emotion, intensity, statement, take, actor):
        del intensity, take
        if (modality, channel) != ("03", "01"):
            return None
        number = int(actor)
        return {
            "label": RAVDESS[int(emotion) - 1],
            "text": _STATEMENTS[int(statement) - 1],
            "speaker": f"actor_{actor}",
            "gender": "m" if number % 2 else "f",
        }

    fields = r"(0[123])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(\d\d)"
    return _named(root, "ravdess", fields, "03-01-05-01-02-01-12.wav", parsed)


def cremad(*, root: str) -> list[Utterance]:
    """CREMA-D (Cao et al. 2014), 6 emotions, 91 actors: ACTOR_SENTENCE_EMOTION_LEVEL. The label is what was acted."""

    def parsed(actor, sentence, emotion, level):
        del level
        return {"label": CREMAD[emotion], "text": _CREMAD_SENTENCES[sentence], "speaker": actor}

    fields = rf"(1\d\d\d)_({'|'.join(_CREMAD_SENTENCES)})_({'|'.join(CREMAD)})_(XX|LO|MD|HI|X)"
    return _named(root, "cremad", fields, "1001_DFA_ANG_XX.wav", parsed)


def emodb(*, root: str) -> list[Utterance]:
    """Emo-DB (Burkhardt et al. 2005), German, 7 emotions, 10 speakers: SPEAKER SENTENCE EMOTION VERSION, 03a01Fa."""
    women = ("08", "09", "13", "14", "16")

    def parsed(speaker, sentence, emotion, version):
        del version
        text, gender = _EMODB_SENTENCES[sentence], "f" if speaker in women else "m"
        return {"label": EMODB[emotion], "text": text, "speaker": f"emodb_{speaker}", "gender": gender}

    fields = rf"(\d\d)({'|'.join(_EMODB_SENTENCES)})([{''.join(EMODB)}])([a-f]?)"
    return _named(root, "emodb", fields, "03a01Fa.wav", parsed)


def _named(root, source, fields: str, example: str, parsed: Callable[..., dict | None]) -> list[Utterance]:
    """The recordings below `root` whose names say all. Errors: one whose name is none, named with an example."""
    found, pattern = [], re.compile(fields)
    for path in audio_below(root, source):
        match = pattern.fullmatch(path.stem)
        if match is None:
            raise BadValue(f"{source}: {path} is not called as its files are, such as {example}")
        if (known := parsed(*match.groups())) is not None:
            name = path.relative_to(root).with_suffix("").as_posix()
            found.append(Utterance(id=name, audio=str(path), **known))
    if not found:
        raise BadValue(f"{source}: nothing of {root!r} is speech of the corpus; its files are called as {example}")
    return found
