"""Languages by other names, and what is said of those that there are not."""

import pytest

from moejax.text import languages


@pytest.mark.parametrize(
    ("given", "code"),
    [
        *(("zh-CN", "zh"), ("zh_TW", "zh"), ("pt-BR", "pt"), ("en-US", "en"), ("iw", "he"), ("jv", "jw"), ("nb", "no")),
        *(("cmn", "zh"), ("fil", "tl"), ("Deutsch", "de"), ("GERMAN", "de"), (" de ", "de"), ("yue-HK", "yue")),
        *(("auto", None), ("Auto", None), ("haitian creole", "ht"), ("xx", "xx"), ("Klingon", "Klingon")),
    ],
)
def test_codes(given, code):
    assert languages.code_of(given) == code


def test_every_other_name_leads_to_a_language():
    assert set(languages.OTHERS.values()) | set(languages.CODES.values()) <= set(languages.NAMES)
    assert not set(languages.OTHERS) & set(languages.NAMES)


def test_a_refusal_names_the_nearest_and_not_all():
    codes = tuple(languages.NAMES)
    message = languages.unknown("Germn", codes)
    assert "did you mean de (german)?" in message and len(message) < 150
    assert languages.unknown("zz!", ("en", "de")) == (
        "unknown language 'zz!'; this vocabulary has en (english), de (german)"
    )
