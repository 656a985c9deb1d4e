"""The grammar reads what it writes, and judges an edit as worked by hand."""

import itertools
import re
import string

import numpy as np
import pytest

from eagle_jax.data import prompts
from eagle_jax.data.minilens import corpus, grammar
from eagle_jax.data.minilens.grammar import LEXICON, SLOTS, GrammarOracle, Telling
from eagle_jax.data.prompts import MOVIE, MalformedText

ORACLE = GrammarOracle()
NAMES = {slot: 0 for slot in SLOTS}  # the film of all first values
TEXT = (
    "#BEGIN_PLOT this grim western film plays in the desert. the detective must face revenge. "
    "it is about loyalty and ends happily. #END_PLOT "
    "#BEGIN_REASONS_TO_LIKE the handheld images and the jazz score. #END_REASONS_TO_LIKE "
    "#BEGIN_REASONS_TO_DISLIKE it is not for children. #END_REASONS_TO_DISLIKE"
)


def draw_film(rng):
    return {slot: int(rng.integers(grammar.num_values(slot))) for slot in SLOTS}


def every_way_to_tell(film, dialect):
    """All templates; the words change from one to the next, so that all are used."""
    counts = [len(grammar._TEMPLATES[dialect][block]) for block in grammar.BLOCK_SLOTS]
    for number, templates in enumerate(itertools.product(*map(range, counts))):
        first = (number % 2) + (dialect == "b")
        yield Telling(dialect, templates, tuple(LEXICON[slot][film[slot]][first] for slot in SLOTS))


def reason_of(text):
    with pytest.raises(MalformedText) as caught:
        grammar.parse_film(text)
    return caught.value.reason


def fixed_words():
    """Words of templates, actions, instructions and profiles that are no values."""
    texts = [*grammar.ACTIONS.values(), *corpus._PROFILE_WORDS, tuple(corpus.PROFILE_SLOTS)]
    texts += [texts for blocks in grammar._TEMPLATES.values() for texts in blocks.values()]
    texts += [tuple(vars(prompts.COMPACT).values()), MOVIE.action_categories, (MOVIE.noun,)]
    flat = " ".join(text for group in texts for text in group)
    bare = "".join(piece or "" for piece, *_ in string.Formatter().parse(flat))
    return set(re.findall("[a-z]+", bare.lower()))


def test_the_world_is_as_large_as_promised():
    assert len(SLOTS) >= 8
    assert np.prod([float(grammar.num_values(slot)) for slot in SLOTS]) > 1e8
    assert sorted(slot for slots in grammar.BLOCK_SLOTS.values() for slot in slots) == sorted(SLOTS)
    assert tuple(grammar.BLOCK_SLOTS) == MOVIE.blocks
    # Every slot can be changed by exactly one category of action.
    changed = [slot for slots in grammar.CATEGORY_SLOTS.values() for slot in slots]
    assert sorted(changed) == sorted(SLOTS)
    assert tuple(grammar.CATEGORY_SLOTS) == MOVIE.action_categories


def test_a_word_belongs_to_one_value_and_to_no_template():
    words = [word for values in LEXICON.values() for value in values for word in value]
    assert len(words) == len(set(words)) == len(grammar.word_values())
    assert all(re.fullmatch("[a-z]+", word) for word in words)
    assert all(len(value) == 3 for values in LEXICON.values() for value in values)
    assert "film" in fixed_words() and "explore" in fixed_words() and "loves" in fixed_words()
    assert not set(words) & fixed_words()
    for slot, values in LEXICON.items():
        for index, value in enumerate(values):
            assert grammar.mentions(" ".join(value)) == [(slot, index)] * 3


def test_the_dialects_share_one_word_of_three_and_the_number_of_templates():
    for block in grammar.BLOCK_SLOTS:
        a, b = (grammar._TEMPLATES[dialect][block] for dialect in grammar.DIALECTS)
        assert len(a) == len(b) >= 2  # an edit into the other dialect keeps the template's number
        assert not set(a) & set(b)
    rng = np.random.default_rng(0)
    seen = {d: {grammar.draw_word("tone", 2, d, rng) for _ in range(60)} for d in grammar.DIALECTS}
    assert seen == {"a": {"tender", "gentle"}, "b": {"gentle", "warm"}}
    assert {grammar.any_word("tone", 2, rng) for _ in range(60)} == {"tender", "gentle", "warm"}


def test_a_telling_worked_by_hand():
    words = tuple(LEXICON[slot][0][0] for slot in SLOTS)
    assert grammar.tell_film(Telling("a", (0, 0, 0), words)) == TEXT
    assert grammar.parse_film(TEXT) == NAMES
    assert grammar.title_of(NAMES) == " ".join(words)


@pytest.mark.parametrize("dialect", grammar.DIALECTS)
def test_every_telling_is_read_back(dialect):
    rng = np.random.default_rng(1)
    for _ in range(10):
        film = draw_film(rng)
        tellings = list(every_way_to_tell(film, dialect))
        texts = [grammar.tell_film(telling) for telling in tellings]
        assert len(set(texts)) == len(texts) >= 12
        for text in texts:
            assert grammar.parse_film(text) == film
            assert list(grammar.parse_film(text)) == list(SLOTS)
            assert 30 <= len(corpus.split_words(text)) <= 62
    drawn = {grammar.tell_film(grammar.draw_telling(film, dialect, rng)) for _ in range(50)}
    assert len(drawn) > 40  # paraphrase variety


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("children", "people", "missing_slot"),
        ("grim western", "western", "missing_slot"),
        ("loyalty and", "loyalty and freedom and", "doubled_slot"),
        ("loyalty and", "loyalty and loyalty and", "doubled_slot"),
        ("jazz score", "grim score", "misplaced_slot"),
        ("for children", "for children at the desert", "misplaced_slot"),
        ("#END_PLOT", "", "missing_block"),
        ("#BEGIN_PLOT", "#BEGIN_PLOT #BEGIN_PLOT", "wrong_markers"),
        ("#BEGIN_PLOT", "here: #BEGIN_PLOT", "text_outside_blocks"),
        ("it is not for children.", "", "empty_block"),
    ],
)
def test_a_text_that_is_no_film_has_its_reason(old, new, reason):
    assert old in TEXT
    assert reason_of(TEXT.replace(old, new)) == reason


@pytest.mark.parametrize("dialect", grammar.DIALECTS)
def test_retelling_keeps_template_and_words_and_changes_what_is_asked(dialect):
    rng = np.random.default_rng(2)
    for _ in range(30):
        film = draw_film(rng)
        telling = grammar.draw_telling(film, dialect, rng)
        assert grammar.retell(telling, {}, dialect) == telling
        slot = SLOTS[int(rng.integers(len(SLOTS)))]
        value = int(rng.integers(grammar.num_values(slot)))
        word = LEXICON[slot][value][1]  # both dialects have it
        edited = grammar.retell(telling, {slot: word}, dialect)
        assert (edited.dialect, edited.templates) == (dialect, telling.templates)
        expected = [word if s == slot else w for s, w in zip(SLOTS, telling.words, strict=True)]
        assert list(edited.words) == expected
        assert grammar.parse_film(grammar.tell_film(edited)) == film | {slot: value}


@pytest.mark.parametrize(("source", "target"), [("a", "b"), ("b", "a")])
def test_retelling_in_the_other_dialect_translates_the_words_it_lacks(source, target):
    film = {slot: 1 for slot in SLOTS}
    for telling in every_way_to_tell(film, source):
        edited = grammar.retell(telling, {"tone": "warm" if source == "a" else "tender"}, target)
        assert (edited.dialect, edited.templates) == (target, telling.templates)
        assert grammar.parse_film(grammar.tell_film(edited)) == film | {"tone": 2}
        own = {
            value[k] for values in LEXICON.values() for value in values for k in ((0, 1) if target == "a" else (1, 2))
        }
        for before, after in zip(telling.words, edited.words, strict=True):
            assert after in own
            if grammar.word_values()[before][0] != "tone" and before in own:
                assert after == before
    assert [grammar.in_dialect(word, "a") for word in LEXICON["tone"][2]] == ["tender", "gentle", "tender"]
    assert [grammar.in_dialect(word, "b") for word in LEXICON["tone"][2]] == ["warm", "gentle", "warm"]


def test_an_action_names_one_value_of_its_slot():
    rng = np.random.default_rng(3)
    for word, place in grammar.word_values().items():
        actions = {grammar.tell_action(word, rng) for _ in range(20)}
        assert len(actions) == 2
        assert all(grammar.mentions(action) == [place] for action in actions)


@pytest.mark.parametrize("dialect", grammar.DIALECTS)
def test_single_edits_are_all_texts_one_slot_away(dialect):
    film = draw_film(np.random.default_rng(4))
    telling = list(every_way_to_tell(film, dialect))[7]
    text = grammar.tell_film(telling)
    edits = ORACLE.single_edits(text)
    # 74 values, of which the film has 10.
    assert len(edits) == len(set(edits)) == sum(map(grammar.num_values, SLOTS)) - len(SLOTS) == 64
    reached = set()
    for edit in edits:
        other = grammar.parse_film(edit)
        [slot] = [slot for slot in SLOTS if other[slot] != film[slot]]
        reached.add((slot, other[slot]))
        # Apart from the word of that slot the text is the same, word for word.
        differing = [(a, b) for a, b in zip(text.split(), edit.split(), strict=True) if a != b]
        assert len(differing) == 1
        word = LEXICON[slot][other[slot]][1]
        assert word in differing[0][1]
        action = grammar.tell_action(word, np.random.default_rng(5))
        outcome = ORACLE.judge_edit(text, action, edit)
        assert (outcome.well_formed, outcome.followed, outcome.kept) == (True, True, 1.0)
    assert len(reached) == 64


def test_a_text_that_cannot_be_read_has_no_edits():
    assert ORACLE.single_edits("") == []
    assert ORACLE.single_edits(TEXT.replace("children", "people")) == []


@pytest.mark.parametrize(
    ("action", "changes", "followed", "kept"),
    [
        ("move it to the harbor.", {"desert": "docks"}, True, 1.0),  # any of its words will do
        ("move it to the harbor.", {}, False, 1.0),
        ("move it to the harbor.", {"desert": "castle"}, False, 1.0),
        # Nine slots are not named; one of them changed, two of them changed.
        ("move it to the harbor.", {"desert": "harbor", "jazz": "synth"}, True, 8 / 9),
        ("move it to the harbor.", {"jazz": "synth", "grim": "wry"}, False, 7 / 9),
        # Another word for the same value is no change.
        ("move it to the harbor.", {"desert": "harbor", "grim": "bleak"}, True, 1.0),
        # Two changes at once: eight slots are not named.
        ("use synth music. explore grief.", {"jazz": "synth", "loyalty": "grief"}, True, 1.0),
        ("use synth music. explore grief.", {"jazz": "synth"}, False, 1.0),
        ("use synth music. explore grief.", {"jazz": "techno", "loyalty": "loss", "happily": "quietly"}, True, 7 / 8),
        # What is there already is kept by asking for it.
        ("make the tone grim.", {}, True, 1.0),
        # The last word counts.
        ("use synth music. use folk music.", {"jazz": "folk"}, True, 1.0),
        ("use synth music. use folk music.", {"jazz": "synth"}, False, 1.0),
        # An action that names nothing cannot be followed, and wants everything kept.
        ("make it better.", {"jazz": "folk"}, False, 9 / 10),
    ],
)
def test_judging_an_edit(action, changes, followed, kept):
    after = TEXT
    for old, new in changes.items():
        assert after.count(old) == 1
        after = after.replace(old, new)
    outcome = ORACLE.judge_edit(TEXT, action, after)
    assert outcome.well_formed
    assert (outcome.followed, outcome.kept) == (followed, pytest.approx(kept))


@pytest.mark.parametrize("after", ["", "a film", TEXT.replace("grim", ""), TEXT + " the end"])
def test_a_malformed_edit_counts_for_nothing(after):
    outcome = ORACLE.judge_edit(TEXT, "use synth music.", after)
    assert (outcome.well_formed, outcome.followed, outcome.kept) == (False, False, 0.0)


def test_an_edit_of_an_unreadable_text_cannot_be_judged():
    with pytest.raises(MalformedText):
        ORACLE.judge_edit("a film", "use synth music.", TEXT)
