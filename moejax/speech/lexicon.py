"""The words of the embedded corpus, English and German, with the forms that its sentences need."""

from __future__ import annotations

import dataclasses

# English singular, English plural (None: not used), German singular, German plural, gender.
_NOUNS = {
    "people": """man men Mann Männer m|woman women Frau Frauen f|child children Kind Kinder n
        teacher teachers Lehrer Lehrer m
        doctor - Arzt - m|girl - Mädchen - n|boy - Junge - m|friend friends Freund Freunde m|dog dogs Hund Hunde m
        cat cats Katze Katzen f|horse horses Pferd Pferde n|mother - Mutter - f""",
    "things": """house houses Haus Häuser n|book books Buch Bücher n|car cars Auto Autos n|apple apples Apfel Äpfel m
        flower flowers Blume Blumen f|picture - Bild - n|key keys Schlüssel Schlüssel m|lamp - Lampe - f
        cup - Tasse - f|hat - Hut - m|fish - Fisch - m|bread - Brot - n""",
    "places": """table - Tisch - m|door - Tür - f|garden - Garten - m|bridge - Brücke - f|tree - Baum - m
        window - Fenster - n""",
}


_ADJECTIVES = {
    "any": "small klein|big groß|old alt|good gut|beautiful schön",
    "people": "young jung|tired müde",
    "things": "red rot|blue blau|green grün|new neu|white weiß|black schwarz",
}


# base, third person, past | German: infinitive, ich, du, er, past of er, stem of the plural past
_TRANSITIVE = """see sees saw sehen sehe siehst sieht sah|buy buys bought kaufen kaufe kaufst kauft kaufte
    find finds found finden finde findest findet fand|need needs needed brauchen brauche brauchst braucht brauchte
    carry carries carried tragen trage trägst trägt trug|paint paints painted malen male malst malt malte
    hear hears heard hören höre hörst hört hörte|forget forgets forgot vergessen vergesse vergisst vergisst vergaß"""


_INTRANSITIVE = """sleep sleeps slept schlafen schlafe schläfst schläft schlief
    sing sings sang singen singe singst singt sang
    laugh laughs laughed lachen lache lachst lacht lachte|wait waits waited warten warte wartest wartet wartete
    work works worked arbeiten arbeite arbeitest arbeitet arbeitete
    dance dances danced tanzen tanze tanzt tanzt tanzte"""


_DITRANSITIVE = """give gives gave geben gebe gibst gibt gab|show shows showed zeigen zeige zeigst zeigt zeigte
    bring brings brought bringen bringe bringst bringt brachte"""


PREPOSITIONS = {"behind": "hinter", "under": "unter", "near": "neben", "on": "auf"}


NUMBERS = {"two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "seven": "sieben", "nine": "neun"}


NOW = {"today": "heute", "now": "jetzt", "often": "oft", "always": "immer", "never": "nie"}


PRONOUNS = {
    "i": ("ich", "1s"),
    "you": ("du", "2s"),
    "he": ("er", "3s"),
    "she": ("sie", "3s"),
    "we": ("wir", "p"),
    "they": ("sie", "p"),
}


MODALS = {
    "can": ("kann", "kannst", "kann", "können"),
    "must": ("muss", "musst", "muss", "müssen"),
    "will": ("werde", "wirst", "wird", "werden"),
}


PERSON = {"1s": 0, "2s": 1, "3s": 2, "p": 3}


@dataclasses.dataclass(frozen=True)
class Noun:
    """One noun in both languages; `plural` forms are None where the grammar uses the singular only."""

    english: str
    english_plural: str | None
    german: str
    german_plural: str | None
    gender: str


@dataclasses.dataclass(frozen=True)
class Verb:
    """One verb: English base, third person, past; German infinitive, present of ich/du/er/plural, past of er."""

    base: str
    third: str
    past: str
    infinitive: str
    present: tuple[str, str, str, str]
    preterite: str


def _rows(table: str) -> list[list[str]]:
    return [row.split() for line in table.splitlines() for row in line.split("|") if row.strip()]


def _noun(row: list[str]) -> Noun:
    one, many, ein, viele, gender = row
    return Noun(one, None if many == "-" else many, ein, None if viele == "-" else viele, gender)


def _verb(row: list[str]) -> Verb:
    base, third, past, infinitive, ich, du, er, preterite = row
    return Verb(base, third, past, infinitive, (ich, du, er, infinitive), preterite)


NOUNS = {kind: [_noun(row) for row in _rows(table)] for kind, table in _NOUNS.items()}


ADJECTIVES = {kind: [(english, german) for english, german in _rows(table)] for kind, table in _ADJECTIVES.items()}
TRANSITIVE, INTRANSITIVE, DITRANSITIVE = (
    [_verb(row) for row in _rows(table)] for table in (_TRANSITIVE, _INTRANSITIVE, _DITRANSITIVE)
)
