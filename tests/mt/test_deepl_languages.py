"""Languages in DeepL's own words; what it lacks is refused before anything is sent."""

import deepl
import pytest
from deepl import Language
from deepl_server import KEY

from moejax.mt import deepl_client, deepl_languages
from moejax.mt.deepl_errors import TranslationError
from moejax.text import languages


@pytest.mark.parametrize(
    ("given", "read", "written"),
    [
        ("en", "EN", "EN-US"),
        ("EN", "EN", "EN-US"),
        ("en-GB", "EN", "EN-GB"),
        ("en_us", "EN", "EN-US"),
        ("pt", "PT", "PT-BR"),
        ("pt-PT", "PT", "PT-PT"),
        ("no", "NB", "NB"),
        ("nn", "NB", "NB"),
        ("nb", "NB", "NB"),
        ("iw", "HE", "HE"),
        ("jw", "JV", "JV"),
        ("de", "DE", "DE"),
        ("de-CH", "DE", "DE-CH"),
        ("de-AT", "DE", "DE"),
        ("es-419", "ES", "ES-419"),
        ("es-MX", "ES", "ES"),
        ("zh", "ZH", "ZH"),
        ("zh-TW", "ZH", "ZH-HANT"),
        ("zh-Hans", "ZH", "ZH-HANS"),
        ("yue", "YUE", "YUE"),
        ("yo", None, None),
        ("xx", None, None),
        ("", None, None),
    ],
)
def test_codes_become_deepls(given, read, written):
    assert (deepl_languages.source_of(given), deepl_languages.target_of(given)) == (read, written)


def test_the_tables_are_those_of_the_official_client():
    """Its constants name every language of its time; two regions are newer than version 1.32."""
    known = {value.lower() for name, value in vars(Language).items() if name.isupper()}
    targets, sources = set(deepl_languages.TARGETS), set(deepl_languages.SOURCES)
    assert targets - {"de-ch", "fr-ca"} <= known - {"en", "pt"}
    assert sources <= {code for code in known if "-" not in code}
    if deepl.__version__.startswith("1.32."):  # a later one may know more
        assert len(targets) == len(known) and len(sources) == sum("-" not in code for code in known)
    assert len(targets) == len(deepl_languages.TARGETS) and len(sources) == len(deepl_languages.SOURCES)
    assert targets >= set(deepl_languages.FORMAL) and sources >= set(deepl_languages.INSTRUCTED)


def test_every_language_of_whisper_is_known_or_lacking_on_purpose():
    lacking = {code for code in languages.NAMES if deepl_languages.source_of(code) is None}
    assert lacking == {"am", "bo", "fo", "haw", "km", "kn", "lo", "sd", "si", "sn", "so", "yo"}
    assert lacking == {code for code in languages.NAMES if deepl_languages.target_of(code) is None}


def test_what_is_lacking_is_refused_before_anything_is_sent(server, tmp_path):
    client = deepl_client.DeepL(KEY, server.url, tmp_path)
    for source, target, words in (
        ("yo", "de", r"DeepL does not read 'yo'; it reads ar, bg"),
        ("en", "haw", r"DeepL does not write 'haw'; did you mean ha\?"),
        ("en", "en-gbb", None),
    ):
        if words is None:
            assert deepl_languages.target_of(target) == "EN-US"
            continue
        for call in (client.translate, client.plan):
            with pytest.raises(TranslationError, match=words) as caught:
                call(["one"], source, target)
            assert "\n" not in str(caught.value)
    assert server.calls == []


def test_regions_reach_the_server(server, tmp_path):
    client = deepl_client.DeepL(KEY, server.url, tmp_path)
    for source, target in (("de", "en"), ("no", "pt"), ("pt-BR", "no"), ("en", "zh-TW")):
        assert client.translate(["one"], source, target) == ["ONE"]
    sent = [(r["source_lang"], r["target_lang"]) for r in server.requests]
    assert sent == [("DE", "EN-US"), ("NB", "PT-BR"), ("PT", "NB"), ("EN", "ZH-HANT")]
    assert client.translate(["one"], "NB", "pt-br") == ["ONE"] and len(server.requests) == 4  # by either name


@pytest.mark.parametrize(("source", "target"), [("en", "en-gb"), ("no", "nn"), ("pt", "pt-br"), ("de", "DE")])
def test_the_same_language_comes_back_as_it_is_and_costs_nothing(server, tmp_path, source, target):
    client = deepl_client.DeepL(None, server.url, tmp_path)  # not even a key
    assert client.translate([" one ", "", "one"], source, target) == [" one ", "", "one"]
    assert client.plan(["one"], source, target).characters == 0
    assert server.calls == [] and not list(tmp_path.rglob("*.json"))


def test_two_unknown_languages_are_not_the_same():
    assert not deepl_languages.same("yo", "so") and deepl_languages.same("yo", "yo")


@pytest.mark.parametrize("formality", ["less", "more"])
def test_formality_is_refused_where_it_does_not_exist(server, tmp_path, formality):
    client = deepl_client.DeepL(KEY, server.url, tmp_path, formality=formality)
    for target in ("en", "uk", "de-ch", "zh"):
        source = "de" if target != "de-ch" else "en"
        with pytest.raises(TranslationError, match=f"formality {formality} does not exist for .*; it does for de, es"):
            client.translate(["one"], source, target)
    assert server.calls == []
    assert client.translate(["one"], "en", "pt") == ["ONE"]
    assert server.requests[0]["formality"] == formality
    preferring = deepl_client.DeepL(KEY, server.url, tmp_path, formality=f"prefer_{formality}")
    assert preferring.translate(["one"], "de", "uk") == ["ONE"]


def test_the_formal_are_those_of_the_server(server, tmp_path):
    """No other target of the test server's takes it: table and server are written down apart."""
    from deepl_server import FORMAL

    assert {code.lower() for code in FORMAL} == set(deepl_languages.FORMAL)
