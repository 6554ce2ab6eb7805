"""Glossaries, styles, instructions, memories: what reaches DeepL, what is refused before, what the cache does."""

import pytest
from deepl_server import KEY

from moejax.mt import deepl_client, deepl_glossary, deepl_options
from moejax.mt.deepl_errors import TranslationError

TERMS = {"heart": "Herz", "heart rate": "Puls"}


def glossary(path, entries=TERMS) -> str:
    path.write_text("".join(f"{term}\t{other}\n" for term, other in entries.items()), encoding="utf-8")
    return str(path)


@pytest.fixture
def open_client(server, tmp_path):
    return lambda **options: deepl_client.DeepL(KEY, server.url, tmp_path / "cache", **options)


def test_a_glossary_file_is_uploaded_once_and_used(server, open_client, tmp_path):
    file = glossary(tmp_path / "terms.tsv")
    assert open_client(glossary=file).translate(["my heart", "two"]) == ["MY Herz", "TWO"]
    assert server.calls == ["GET /v3/glossaries", "POST /v3/glossaries", "POST /v2/translate"]
    (made,) = server.glossaries.values()
    assert made["entries"] == TERMS and made["name"] == f"moejax EN-DE {deepl_glossary.digest(TERMS)}"
    assert server.requests[0]["glossary_id"] == made["glossary_id"]
    # Another run, another order of the entries, another file: the same glossary, and the same texts
    other = glossary(tmp_path / "copy.tsv", dict(reversed(TERMS.items())))
    client = open_client(glossary=other)
    assert client.translate(["my heart", "three"]) == ["MY Herz", "THREE"]
    assert client.translate(["four"]) == ["FOUR"]
    assert server.calls[3:] == ["GET /v3/glossaries", "POST /v2/translate", "POST /v2/translate"]
    assert len(server.glossaries) == 1 and server.requests[1]["text"] == ["three"]


def test_other_entries_and_languages_are_other_glossaries_and_texts(server, open_client, tmp_path):
    file = glossary(tmp_path / "terms.tsv")
    open_client(glossary=file).translate(["heart"])
    assert open_client(glossary={"heart": "HERZ"}).translate(["heart"]) == ["HERZ"]
    open_client(glossary=file).translate(["heart"], "en", "pt")
    open_client(glossary=file).translate(["heart"], "en", "pt-pt")  # the glossary holds for both regions
    names = [found["name"].split()[1] for found in server.glossaries.values()]
    assert names == ["EN-DE", "EN-DE", "EN-PT"] and len(server.requests) == 4
    assert open_client(glossary=file).translate(["heart"]) == ["Herz"] and len(server.requests) == 4


def test_a_cached_run_uploads_nothing_and_needs_no_key(server, open_client, tmp_path):
    file = glossary(tmp_path / "terms.tsv")
    open_client(glossary=file).translate(["heart"])
    server.glossaries.clear()
    calls = len(server.calls)
    again = deepl_client.DeepL(None, server.url, tmp_path / "cache", glossary=file)
    assert again.translate(["heart"]) == ["Herz"] and again.plan(["heart", "new"]).requests == 1
    assert len(server.calls) == calls


def test_an_id_is_used_as_it_is(server, open_client, tmp_path):
    made = server.own("of the account", "EN", "DE", TERMS)
    assert open_client(glossary=made["glossary_id"]).translate(["heart"]) == ["Herz"]
    assert server.calls == ["POST /v2/translate"]
    for id, target, words in (
        ("nowhere", "de", r"\(404\); check the ids"),
        (made["glossary_id"], "fr", "No dictionary"),
    ):
        with pytest.raises(TranslationError, match=words) as caught:
            open_client(glossary=id).translate(["two"], target=target)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("heart\n", "line 1 has 1 columns; it takes TERM<tab>TERM"),
        ("\nheart\tHerz\textra\n", "line 2 has 3 columns"),
        ("heart\tHerz\nheart\tPuls\n", "line 2: 'heart' was 'Herz' before"),
        ("heart\t\n", "has an empty term"),
        ("", "has no entries"),
        ("a\u2028b\tc\n", "has a control character"),
        ("a" * 1025 + "\tb\n", "is longer than DeepL's 1024 bytes"),
        ("".join(f"{i:01000d}\t{i:01000d}\n" for i in range(5300)), "bytes, more than DeepL's 10485760"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
    ids=lambda value: str(value)[:12] if isinstance(value, str) and len(value) < 40 else "",
)
def test_a_bad_glossary_is_refused_before_anything_is_sent(server, open_client, tmp_path, content, words):
    file = tmp_path / "terms.tsv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TranslationError, match=words) as caught:
        open_client(glossary=file)
    assert "\n" not in str(caught.value) and server.calls == []


def test_a_glossary_may_have_a_byte_order_mark_empty_lines_and_repetitions(tmp_path):
    (tmp_path / "a.tsv").write_bytes("\ufeffheart\tHerz\r\n\r\n heart \t Herz \r\nlung\tLunge".encode())
    assert deepl_glossary.read(tmp_path / "a.tsv") == {"heart": "Herz", "lung": "Lunge"}
    with pytest.raises(TranslationError, match=r"none.tsv cannot be read \(No such file"):
        deepl_glossary.read(tmp_path / "none.tsv")


def test_an_account_that_is_full_of_glossaries_says_so(server, open_client, tmp_path):
    server.most_glossaries = 0
    with pytest.raises(TranslationError, match=r"limit on glossaries is reached \(456\); delete one of them"):
        open_client(glossary=TERMS).translate(["heart"])
    assert server.requests == []
    server.most_glossaries = 1
    with pytest.raises(TranslationError, match="make a glossary of 2 terms from SW to DE: Bad request"):
        open_client(glossary=TERMS).translate(["heart"], "sw")


def test_styles_instructions_and_memories_reach_deepl(server, open_client):
    client = open_client(
        style_rule="style-1",
        custom_instructions=["Use short words.", "Address the reader as du."],
        translation_memory="memory-1",
        translation_memory_threshold=80,
        tag_handling="html",
    )
    assert client.translate(["one"]) == ["ONE"]
    (request,) = server.requests
    assert request["style_id"] == "style-1" and request["tag_handling"] == "html"
    assert request["custom_instructions"] == ["Use short words.", "Address the reader as du."]
    assert (request["translation_memory_id"], request["translation_memory_threshold"]) == ("memory-1", 80)


def test_each_option_has_translations_of_its_own(server, open_client):
    every = [
        {},
        {"formality": "more"},
        {"glossary": TERMS},
        {"style_rule": "s"},
        {"custom_instructions": ("Short.",)},
        {"custom_instructions": ("Shorter.",)},
        {"translation_memory": "m"},
        {"translation_memory": "m", "translation_memory_threshold": 0},
        {"tag_handling": "xml"},
    ]
    for options in [*every, *every]:
        open_client(**options).translate(["one"])
    assert len(server.requests) == len(every)


def test_instructions_count_to_the_size_of_a_request(server, open_client):
    client = open_client(custom_instructions=["ü" * 300] * 10)
    texts = [f"{i} " + "a" * 12_000 for i in range(30)]
    assert client.translate(texts) == [t.upper() for t in texts]
    assert max(server.sizes) <= 128 * 1024


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"formality": "polite"}, "formality is 'polite'; DeepL takes default, less"),
        ({"tag_handling": "md"}, "tag_handling is 'md'; DeepL takes xml, html"),
        ({"custom_instructions": ["a"] * 11}, "11 custom instructions; DeepL takes 10 at most"),
        ({"custom_instructions": ["a" * 301]}, "has 301 characters; DeepL takes 1 to 300"),
        ({"custom_instructions": [" "]}, "DeepL takes 1 to 300"),
        ({"translation_memory_threshold": 80}, "needs translation_memory"),
        ({"translation_memory": "m", "translation_memory_threshold": 101}, "is 101; it takes 0 to 100 percent"),
    ],
)
def test_values_that_deepl_never_takes_are_refused(options, words):
    with pytest.raises(TranslationError, match=words) as caught:
        deepl_options.Options(**options)
    assert "\n" not in str(caught.value)


def test_options_that_a_language_lacks_are_refused_before_anything_is_sent(server, open_client):
    for options in ({"custom_instructions": ["Short."]}, {"style_rule": "s"}):
        with pytest.raises(TranslationError, match="does not exist for PL; it does for de, en, es"):
            open_client(**options).translate(["one"], target="pl")
        assert open_client(**options).translate(["one"], "de", "en-gb") == ["ONE"]
    assert len(server.requests) == 2


def test_terms_are_learnt_where_the_translation_never_changes():
    pairs = [
        ("turn the lamp on", "mach die Lampe an"),
        ("turn the lamp off", "mach die Lampe aus"),
        ("where is the Lamp", "wo ist die Lampe"),
        ("Anna is here", "Anna ist hier"),
        ("is Anna there", "ist Anna da"),
        ("call Anna", "ruf Anna an"),
        ("call the bank", "ruf die Bank an"),
        ("sit on the bank", "sitz am Ufer"),
        ("by the bank", "beim Ufer"),
        ("water", "Wasser"),
        ("Water!", "Wasser."),
        ("stop", "halt"),
        ("stop", "stopp"),
    ]
    assert deepl_glossary.learn(pairs) == {"Anna": "Anna", "lamp": "Lampe", "water": "Wasser"}
    assert deepl_glossary.learn([]) == {}
    assert "lamp" not in deepl_glossary.learn(pairs, least=4)


def test_words_that_only_occur_together_are_not_taken_for_each_other():
    pairs = [
        ("north wind today", "heute Nord Wind"),
        ("north wind now", "nun Nord Wind"),
        ("a north wind", "Nord Wind"),
    ]
    assert deepl_glossary.learn(pairs) == {}
