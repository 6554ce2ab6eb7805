"""The cast of the embedded corpus: seven cohorts of synthetic speakers, and how each of them speaks.

The styles imitate the acoustics of atypical speech (slow and flat, tremor, breathy, substituted and dropped sounds,
foreign accent), not any illness: an etiology reads "synthetic: tremor", never "Parkinson's". A speaker is fixed by
cohort, index and seed, so adding speakers or cohorts changes nobody.
"""

from __future__ import annotations

import dataclasses
import random

from moejax.errors import BadValue
from moejax.speech.render import SpeechItem

# espeak-ng's voice variants that sound like the plain voice of somebody else: a word classifier trained on ten of them
# erred on at most 14 % of another's words. On the odd ones it erred on 20 to 69 %: they would make an atypical speaker
# of a typical one, so only readings use them.
_MALE = """m1 m2 m3 m4 m5 m6 Alex Andy Denis Hugo Mike Reed adam benjamin edward john max rob robert victor""".split()
_FEMALE = "f1 f2 f3 f4 f5 Annie aunty belinda grandma linda".split()
_ODD = "m7 m8 Alicia Andrea Gene Lee Marco Michael anika david paul shelby steph steph2 zac".split()
_VOICES = ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-029")
_MORE_VOICES = (*_VOICES, "en-us-nyc", "en-gb-x-gbclan", "en-gb-x-gbcwmd")  # for readings: the widest range there is
SEVERITIES = ("mild", "moderate", "severe")

# What a cohort does to its speakers, from mild to severe. Numbers are (lowest, highest) and drawn per speaker.
_STYLES: dict[str, tuple[dict, dict, dict]] = {
    "typical": ({}, {}, {}),
    "slow_monotone": (
        {"rate_wpm": (134, 140), "range": (4, 8), "gap_ms": (40, 50), "slur_s": (0.028, 0.032)},
        {"rate_wpm": (126, 130), "range": (1, 4), "gap_ms": (60, 70), "slur_s": (0.038, 0.042)},
        {"rate_wpm": (120, 124), "range": (0, 1), "gap_ms": (80, 90), "slur_s": (0.048, 0.052)},
    ),
    "tremor": (
        {"tremor_hz": (4.0, 7.0), "tremor_depth": (0.68, 0.72)},
        {"tremor_hz": (4.0, 7.0), "tremor_depth": (0.82, 0.86)},
        {"tremor_hz": (4.0, 7.0), "tremor_depth": (0.94, 0.98)},
    ),
    "breathy": (
        {"breath": (0.73, 0.77), "level_db": (-30.0, -28.0), "snr_db": (18.0, 20.0)},
        {"breath": (0.86, 0.90), "level_db": (-32.0, -30.0), "snr_db": (16.0, 18.0)},
        {"breath": (0.96, 1.0), "level_db": (-34.0, -32.0), "snr_db": (13.0, 15.0)},
    ),
    "substituted": (
        {"processes": ("fronting", "gliding")},
        {"processes": ("stopping", "gliding")},
        {"processes": ("backing", "stopping", "gliding")},
    ),
    "dropped": (
        {"processes": ("weak_deletion", "cluster_reduction")},
        {"processes": ("weak_deletion", "final_deletion")},
        {"processes": ("weak_deletion", "cluster_reduction", "final_deletion")},
    ),
    "accent": ({}, {}, {}),  # the language goes by the speaker, not by severity
}
_ACCENTS = ("german", "french", "spanish", "hindi")
COHORTS = tuple(_STYLES)


@dataclasses.dataclass(frozen=True)
class Speaker:
    """One speaker: the manifest's columns, and `manner`: the SpeechItem fields that all utterances share."""

    name: str
    cohort: str
    etiology: str
    severity: str
    accent: str
    gender: str
    manner: dict

    def say(self, text: str, seed: str) -> SpeechItem:
        """The item for one utterance: the speaker's manner with the small variation from one utterance to the next."""
        rng = random.Random(f"{self.name} says {text} {seed}")
        manner = dict(self.manner)
        manner["rate_wpm"] = round(manner["rate_wpm"] * rng.uniform(0.95, 1.05))
        manner["pitch"] = max(0, min(99, manner["pitch"] + rng.randint(-3, 3)))
        manner["level_db"] = round(manner["level_db"] + rng.uniform(-2, 2), 2)
        return SpeechItem(text=text, seed=rng.getrandbits(31), **manner)


def _draw(rng: random.Random, value):
    if isinstance(value, tuple) and isinstance(value[0], float):
        return round(rng.uniform(*value), 3)
    if isinstance(value, tuple) and isinstance(value[0], int):
        return rng.randint(*value)
    return value


def _check(cohort: str) -> None:
    if cohort not in _STYLES:
        raise BadValue(f"unknown cohort {cohort!r} of synthetic speakers; known: {', '.join(COHORTS)}")


def _style(cohort: str, level: int, rng: random.Random) -> dict:
    return {name: _draw(rng, value) for name, value in _STYLES[cohort][level % 3].items()}


def cast(cohort: str, index: int, seed: int) -> Speaker:
    """Speaker `index` of a cohort; severity goes mild, moderate, severe, mild, ... ValueError for a cohort."""
    _check(cohort)
    rng = random.Random(f"speaker {seed} {cohort} {index}")
    female = rng.random() < 0.5 if cohort != "typical" else index % 2 == 0
    voice = _VOICES[index % 2] if cohort == "typical" else rng.choice(_VOICES[:2])
    variants = list(_FEMALE if female else _MALE)
    if cohort == "typical":  # no two of them alike until the variants are used up
        random.Random(f"variants {seed} {female}").shuffle(variants)
        variant = variants[index // 2 % len(variants)]
    else:
        variant = rng.choice(variants)
    manner = {
        "voice": voice,
        "variant": variant,
        "rate_wpm": rng.randint(170, 200),
        "pitch": rng.randint(35, 65),
        "range": rng.randint(40, 60),
        "tract": round(rng.uniform(0.95, 1.07), 3),
        "microphone": rng.getrandbits(31),
        "band_hz": (round(rng.uniform(60, 140)), round(rng.uniform(5500, 7600))),
        "reverb_s": round(rng.uniform(0.0, 0.12), 3),
        "level_db": round(rng.uniform(-26, -20), 1),
        "snr_db": round(rng.uniform(24, 36), 1),
        "noise_color": round(rng.uniform(0.5, 0.95), 2),
    }
    manner.update(_style(cohort, index, rng))
    severity, accent = ("none" if cohort == "typical" else SEVERITIES[index % 3]), voice
    if cohort == "accent":
        accent, severity = _ACCENTS[index % len(_ACCENTS)], "none"  # an accent is no impairment
        manner["processes"] = (accent,)
    etiology = "none (synthetic)" if cohort in ("typical", "accent") else f"synthetic: {cohort}"
    return Speaker(f"{cohort}-{index + 1}", cohort, etiology, severity, accent, "female" if female else "male", manner)


def reader(text: str, cohort: str, seed: str) -> SpeechItem:
    """A reading by somebody met once: any English voice, rate, pitch, vocal tract, microphone, noise, echo."""
    _check(cohort)
    rng = random.Random(f"reader {seed} {text} {cohort}")
    manner = {
        "voice": rng.choice(_MORE_VOICES),
        "variant": rng.choice(_FEMALE + _MALE + _ODD),
        "rate_wpm": rng.randint(130, 230),
        "pitch": rng.randint(20, 80),
        "range": rng.randint(20, 80),
        "tract": round(rng.uniform(0.88, 1.14), 3),
        "microphone": rng.getrandbits(31),
        "band_hz": (round(rng.uniform(50, 250)), round(rng.uniform(3600, 7800))),
        "reverb_s": round(max(0.0, rng.uniform(-0.1, 0.3)), 3),
        "level_db": round(rng.uniform(-32, -18), 1),
        "snr_db": round(rng.uniform(12, 40), 1),
        "noise_color": round(rng.uniform(0.0, 0.97), 2),
    }
    if rng.random() < 0.25:  # a hoarse or breathy day
        manner["breath"] = round(rng.uniform(0.1, 0.4), 2)
    manner.update(_style(cohort, rng.randrange(3), rng))
    if cohort == "accent":
        manner["processes"] = (rng.choice(_ACCENTS),)
    return SpeechItem(text=text, seed=rng.getrandbits(31), **manner)
