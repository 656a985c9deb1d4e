"""Prompts are cut by whole tokens, inside the blocks that their task names and nowhere else."""

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from eagle_jax.base.errors import UserError
from eagle_jax.data.prompts import COMPACT, MOVIE, Prompt, policy_prompt, profile_prompt
from eagle_jax.language_model.checkpoints.chat_template import ChatTemplate
from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer
from eagle_jax.language_model.prompt_tokens import PromptTooLongError, cut_tokens, splice_placeholders

FILM = (
    "#BEGIN_PLOT a harbor thief returns #END_PLOT #BEGIN_REASONS_TO_LIKE painted "
    "#END_REASONS_TO_LIKE #BEGIN_REASONS_TO_DISLIKE slow #END_REASONS_TO_DISLIKE"
)
PROFILE = profile_prompt(COMPACT, [f"liked film {n}" for n in range(6)], ["poor film"])
SPLITTERS = {
    "words": (pre_tokenizers.WhitespaceSplit(), decoders.WordPiece(prefix="##", cleanup=False)),
    "bytes": (pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()),
    "pieces": (pre_tokenizers.Metaspace(), decoders.Metaspace()),
}


@pytest.fixture(params=sorted(SPLITTERS))
def backend(request):
    """Tokenizers as those of BERT-like, GPT-2-like and Llama-like checkpoints split text."""
    splitter, decoder = SPLITTERS[request.param]
    texts = [PROFILE.text, FILM, COMPACT.policy, "[TURN] [ANSWER]"] * 2
    if request.param == "words":
        model = models.WordLevel(unk_token="[UNK]")
        trainer = trainers.WordLevelTrainer(special_tokens=["[UNK]"])
    else:
        model, trainer = models.BPE(), trainers.BpeTrainer(vocab_size=180)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer, backend.decoder = splitter, decoder
    backend.train_from_iterator(texts, trainer)
    return backend


def make_tokenizer(backend, chat_template=None):
    return Tokenizer(backend, pad_token=None, bos_token=None, eos_token=None, chat_template=chat_template)


def test_the_end_of_the_block_goes_and_all_else_stays(backend):
    tokenizer = make_tokenizer(backend)
    whole = tokenizer.encode(PROFILE.text)
    before, after = PROFILE.text.split("liked film 0", 1)[0], " #END_LIKED #BEGIN_DISLIKED"
    for count in (1, 5, 9):
        ids = cut_tokens(tokenizer, PROFILE, whole, count)
        assert len(ids) == len(whole) - count
        text = tokenizer.decode(ids)
        assert text.startswith(before + "liked film 0")
        start = text.index(after)
        assert PROFILE.text.startswith(text[:start])
        assert PROFILE.text.endswith(text[start:])
    assert cut_tokens(tokenizer, PROFILE, whole, 0) == whole


def test_the_longest_block_is_cut_until_another_is_as_long():
    backend = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    prompt = policy_prompt(COMPACT, MOVIE, FILM, "one two three four five six")
    words = prompt.text.split()
    # A profile of six words, a plot of four.
    for count, word in enumerate(["six", "five", "returns", "four", "thief", "three"], start=1):
        words.remove(word)
        assert cut_tokens(make_tokenizer(backend), prompt, prompt.text.split(), count) == words


def test_blocks_are_found_inside_a_chat_template_that_strips(backend, tmp_path):
    template = "[TURN] {{ messages[0]['content'] | trim }} [ANSWER]"
    chat = make_tokenizer(backend, ChatTemplate(tmp_path, {"default": template}, {}))
    prompt = Prompt("  " + PROFILE.text, PROFILE.stop, PROFILE.opening, PROFILE.may_be_cut)
    whole = chat.encode_prompt(prompt.text)
    ids = cut_tokens(chat, prompt, whole, 4)
    text = backend.decode(ids, skip_special_tokens=False)
    assert len(ids) == len(whole) - 4
    assert text.startswith("[TURN] " + PROFILE.text[:60])
    assert text.endswith(" #END_LIKED #BEGIN_DISLIKED poor film #END_DISLIKED #BEGIN_USER_PROFILE [ANSWER]")


def test_what_cannot_be_cut_is_an_error_that_counts(backend):
    tokenizer = make_tokenizer(backend)
    ids = tokenizer.encode_prompt(PROFILE.text)
    with pytest.raises(PromptTooLongError, match=r"500 tokens too many, of which \d+ may be cut .*LI"):
        cut_tokens(tokenizer, PROFILE, ids, 500)
    with pytest.raises(PromptTooLongError, match="of which 0 may be cut: its task names no block"):
        cut_tokens(tokenizer, Prompt(PROFILE.text, (), "x"), ids, 1)


def test_placeholders_and_embeddings_are_counted():
    assert splice_placeholders([5, 9, 6, 9], 9, [100, 101], 0) == [5, 100, 6, 101]
    with pytest.raises(UserError, match="prompt 3 has 2 placeholders and 1 embeddings"):
        splice_placeholders([5, 9, 6, 9], 9, [100], 3)
