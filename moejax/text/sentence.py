"""Texts of corpora as published models write them."""


def sentence(text: str) -> str:
    """A text as a published model writes: corpora in capitals or without any mark become a sentence with a full stop.

    Read in capitals, the model goes on in capitals, which it seldom saw.
    """
    text = " ".join(text.split())
    if any(letter.islower() for letter in text) and (any(letter.isupper() for letter in text) or text[-1:] in ".?!"):
        return text
    lower = text.lower()
    said = lower[:1].upper() + lower[1:]
    return said if said[-1:] in ".?!" or not said else f"{said}."
