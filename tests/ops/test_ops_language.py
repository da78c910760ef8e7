"""The language of a corpus: by known stop words, neutral on thin evidence."""

import pytest

from tamis.ops.language import LANGUAGES, document_languages, dominant_language, stop_words

SENTENCES = {
    "english": "the house that stands on the hill is the one we saw from the road and it was very old",
    "german": "das haus das auf dem hügel steht ist das haus das wir von der straße aus gesehen haben",
    "french": "la maison qui est sur la colline est celle que nous avons vue de la route et elle est vieille",
    "spanish": "la casa que está en la colina es la que vimos desde el camino y era muy vieja para nosotros",
    "russian": "дом который стоит на холме это тот дом что мы видели с дороги и он был очень старый",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_running_text(language):
    assert dominant_language([SENTENCES[language]] * 3) == language


def test_code_and_catalogues_count_as_english_and_other_scripts_as_neutral():
    assert dominant_language(["def parse(x): return int(x)", "class Node: pass"]) == "english"
    assert dominant_language(["東京タワーは高い", "大阪城は古い"]) is None
    assert dominant_language([]) is None
    assert dominant_language(["", " "]) is None


def test_the_majority_decides():
    assert dominant_language([SENTENCES["german"]] * 3 + [SENTENCES["english"]]) == "german"


def test_every_language_has_a_list():
    assert all(len(stop_words(name)) > 20 for name in LANGUAGES)


def test_document_languages():
    prose = [" ".join([SENTENCES[name]] * 3) for name in ("english", "german", "french", "spanish", "russian")]
    others = [
        "foo(bar) " * 30,
        "the cat",
        "",
        "東京タワーは高いです" * 8,
        "我们的房子在山上这是一个很好的地方" * 4,
        "우리 집은 언덕 위에 있습니다 " * 12,
    ]
    languages, scripts = document_languages([*prose, *others])
    assert languages.tolist() == ["en", "de", "fr", "es", "ru", "und", "und", "und", "ja", "zh", "ko"]
    assert scripts.tolist() == ["Latn"] * 4 + ["Cyrl", "Latn", "Latn", "Zyyy", "Jpan", "Hani", "Kore"]
    assert [part.tolist() for part in document_languages([])] == [[], []]


def test_fifty_words_are_needed_and_letters_of_code_are_no_words():
    text = SENTENCES["english"].split() * 3
    assert document_languages([" ".join(text[:49]), " ".join(text[:50])])[0].tolist() == ["und", "en"]
    assert document_languages(["d, s, n, m = c, l, y, t " * 20])[0].tolist() == ["und"]
