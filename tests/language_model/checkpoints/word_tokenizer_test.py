"""One token per word: text comes back as it was, and `transformers` reads the same ids."""

import pytest

from eagle_jax.data.minilens import corpus, grammar
from eagle_jax.language_model.checkpoints.tokenizer import load_tokenizer
from eagle_jax.language_model.checkpoints.word_tokenizer import END, PAD, UNKNOWN, write_word_tokenizer

SMALL = ["a", "dog", "runs", "text", ".", ",", ";", ":", "#BEGIN_PLOT", "#END_PLOT", "#BEGIN_PLO"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("minilens") / "made on the way"
    write_word_tokenizer(corpus.vocabulary(), folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def texts():
    """Prompt and completion of every task in both dialects, as training sees them."""
    return [
        f"{example.prompt.text} {example.completion}"
        for task in corpus.CORPUS_TASKS
        for dialect in grammar.DIALECTS
        for example in corpus.draw_examples(task, dialect, 30, 99)
    ]


@pytest.fixture
def small(tmp_path):
    write_word_tokenizer(SMALL, tmp_path)
    return load_tokenizer(tmp_path)


def test_every_task_comes_back_word_for_word(tokenizer, texts):
    unknown = tokenizer.token_id(UNKNOWN)
    for text in texts:
        ids = tokenizer.encode(text)
        assert unknown not in ids
        assert tokenizer.decode(ids) == text


def test_a_token_is_a_word_a_sign_or_a_marker(tokenizer, texts):
    for text in texts[::7]:
        pieces = corpus.split_words(text)
        assert tokenizer.encode(text) == [tokenizer.token_id(piece) for piece in pieces]


def test_a_placeholder_is_one_token_that_nothing_else_becomes(tmp_path):
    words = [*SMALL, "item", "<item>", "<user>"]
    write_word_tokenizer(words, tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    ids = [tokenizer.token_id(word) for word in words]
    assert None not in ids
    assert tokenizer.encode("a <item>. <user>,dog") == [
        tokenizer.token_id(piece) for piece in ["a", "<item>", ".", "<user>", ",", "dog"]
    ]
    assert tokenizer.decode(tokenizer.encode("a <item>. <user>, dog")) == "a <item>. <user>, dog"
    # Neither the word nor the sign alone is a placeholder.
    assert tokenizer.token_id("<item>") not in tokenizer.encode("item < item >")


def test_transformers_gives_the_same_ids_and_special_tokens(folder, tokenizer, texts):
    transformers = pytest.importorskip("transformers")
    for theirs in (
        transformers.PreTrainedTokenizerFast.from_pretrained(folder),
        transformers.AutoTokenizer.from_pretrained(folder),
    ):
        assert len(theirs) == tokenizer.vocab_size
        assert (theirs.pad_token, theirs.unk_token, theirs.eos_token) == (PAD, UNKNOWN, END)
        assert (theirs.pad_token_id, theirs.eos_token_id) == (tokenizer.pad_id, tokenizer.eos_id)
        for text in texts[::5]:
            assert theirs(text)["input_ids"] == tokenizer.encode(text)
            assert theirs.decode(theirs(text)["input_ids"]) == text


def test_ids_follow_the_order_of_the_words(small):
    assert [small.token_id(token) for token in (PAD, UNKNOWN, END)] == [0, 1, 2]
    assert [small.token_id(word) for word in SMALL] == list(range(3, 3 + len(SMALL)))
    assert small.vocab_size == 3 + len(SMALL)
    assert (small.pad_id, small.eos_id, small.bos_id) == (0, 2, None)


def test_case_and_spaces_do_not_matter_but_markers_are_kept(small):
    ids = small.encode("#BEGIN_PLOT a dog, runs. #END_PLOT")
    assert small.encode("  #BEGIN_PLOT A  Dog ,\nRUNS .#END_PLOT") == ids
    assert small.decode(ids) == "#BEGIN_PLOT a dog, runs. #END_PLOT"
    # A marker in small letters is no marker.
    assert small.token_id("#BEGIN_PLOT") not in small.encode("#begin_plot")


def test_unknown_words_markers_and_the_frame_are_told_apart(small):
    longer, shorter, a, runs = map(small.token_id, ("#BEGIN_PLOT", "#BEGIN_PLO", "a", "runs"))
    assert (small.encode("#BEGIN_PLOT"), small.encode("#BEGIN_PLO")) == ([longer], [shorter])
    assert small.encode("a cat runs") == [a, small.token_id(UNKNOWN), runs]
    assert small.decode(small.encode("a cat runs")) == f"a {UNKNOWN} runs"
    assert small.decode([0, 0, *small.encode("a dog: a text; runs."), 2]) == "a dog: a text; runs."
