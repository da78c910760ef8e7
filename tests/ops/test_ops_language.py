"""The language of a corpus: by known stop words, neutral on thin evidence."""

import pytest

from tamis.ops.language import LANGUAGES, dominant_language, stop_words

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
