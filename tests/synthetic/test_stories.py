"""Stories agree with themselves and do not repeat one another."""

import re
from collections import Counter
from random import Random

from penjing.synthetic.copying import copies_a_run, fixed_phrases, run_index
from penjing.synthetic.grammar import expand, words
from penjing.synthetic.lexicon import BOYS, GIRLS
from penjing.synthetic.schemata import SCHEMATA
from penjing.synthetic.stories import Story, make_story

STORIES = [make_story(Random(seed)) for seed in range(5_000)]
FRESH = [make_story(Random(10**6 + seed)) for seed in range(400)]


def _sentences(story: Story) -> list[str]:
    return re.split(r'(?<=[.!?])"? (?=[A-Z"])', story.text)


def test_there_are_forty_schemata_and_all_of_them_are_told() -> None:
    assert len(SCHEMATA) >= 40
    told = Counter(story.schema for story in STORIES)
    assert set(told) == {schema.name for schema in SCHEMATA}
    assert min(told.values()) >= len(STORIES) / 100


def test_the_hero_named_first_is_the_hero_of_the_last_sentence() -> None:
    for story in STORIES[:500]:
        names = re.findall(r"[A-Z][a-z]+", story.text)
        assert next(name for name in names if name in GIRLS + BOYS) == story.hero
        assert story.hero in _sentences(story)[-1]


def test_the_thing_wanted_is_spoken_of_again_after_the_friend_has_come() -> None:
    for story in STORIES[:500]:
        after = story.text[story.text.index(story.friend) :] if story.friend in story.text else ""
        assert story.thing in after, story.text


def test_pronouns_agree_with_the_names_they_stand_for() -> None:
    """Where hero and friend are of one gender, no pronoun of the other gender occurs."""
    for story in STORIES[:1000]:
        girls = {story.hero in GIRLS, story.friend in GIRLS}
        found = set(words(story.text))
        if girls == {True}:
            assert not found & {"he", "his", "him", "boy"}, story.text
        if girls == {False}:
            assert not found & {"she", "her", "girl"}, story.text


def test_sentences_are_well_formed() -> None:
    for story in STORIES[:1000]:
        assert not re.search(r"[\[\]{}|]|\s{2}|\ba [aeiou]|\ban [^aeiou]| [.,!?]", story.text)
        assert all(sentence[0] in '"' or sentence[0].isupper() for sentence in _sentences(story))


def test_stories_have_the_length_that_fits_the_context() -> None:
    lengths = [len(words(story.text)) for story in STORIES]
    assert min(lengths) >= 45
    assert max(lengths) <= 78
    assert sum(lengths) / len(lengths) >= 65


def test_no_story_is_told_twice_and_few_words_repeat_in_runs() -> None:
    assert len({story.text for story in STORIES}) == len(STORIES)
    runs: Counter[str] = Counter()
    for story in STORIES[:1000]:
        tokens = words(story.text)
        runs.update(" ".join(tokens[at : at + 4]) for at in range(len(tokens) - 3))
    assert len(runs) / runs.total() > 0.45


def test_fresh_stories_rarely_repeat_twelve_words_of_five_thousand_others() -> None:
    index = run_index(story.text for story in STORIES)
    assert copies_a_run(STORIES[0].text, index)
    copied = sum(copies_a_run(story.text, index) for story in FRESH) / len(FRESH)
    assert copied < 0.2


def test_a_fixed_phrase_is_a_run_without_choice_or_slot() -> None:
    assert not fixed_phrases(12)
    assert "the wind was cold" not in fixed_phrases(12)
    assert any(phrase == "but had no" for phrase in fixed_phrases(3))


def test_templates_choose_fill_and_agree() -> None:
    text = expand("{H} saw a [old] {N}. it was [[old]].", Random(1), {"H": "Ida", "N": "owl"})
    assert text == "Ida saw an old owl. It was old."
