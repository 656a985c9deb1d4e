"""Prompts of files for a policy with a chat template: how they are read, shortened and answered."""

from collections.abc import Sequence

from eagle_jax.data.preferences.dialogues import DialogueLayout, Turn, dialogue_turns, plain_prompt
from eagle_jax.language_model.checkpoints.chat_template import ChatTemplate
from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer


def chat_layout(template: ChatTemplate) -> DialogueLayout:
    """The plain layout, which the tokenizer renders as turns; what the template refuses, such as
    system turns of some, makes bad rows. The template opens replies, so nothing stands before them.
    """

    def prompt(turns: Sequence[Turn]) -> str:
        template.render_turns(turns)
        return plain_prompt(turns)

    return DialogueLayout(prompt=prompt, reply_prefix="")


def end_of_prompt(tokenizer: Tokenizer, prompt: str, max_tokens: int) -> str | None:
    """The prompt without its beginning where it has more tokens.

    Of a chat the oldest turns of user and assistant go first, then the beginning of what the user
    said last; system turns stay. None where nothing would be left that was said.
    """
    if tokenizer.chat_template is None:
        offsets = tokenizer.prompt_offsets(prompt)
        return prompt if len(offsets) <= max_tokens else prompt[offsets[-max_tokens][0] :]
    dialogue = dialogue_turns(prompt)
    turns = dialogue or [{"role": "user", "content": prompt}]
    while (excess := len(tokenizer.encode_prompt(prompt)) - max_tokens) > 0:
        users = [i for i, turn in enumerate(turns) if turn["role"] == "user"]
        if not users:
            return None
        if len(users) > 1:
            del turns[users[0] : users[1]]
        else:
            said = turns[users[0]]["content"]
            offsets = tokenizer.backend.encode(said, add_special_tokens=False).offsets
            if excess >= len(offsets):
                return None
            # Several tokens may stand for one character.
            rest = said[max(1, offsets[excess][0]) :]
            turns[users[0]] = {"role": "user", "content": rest}
        prompt = plain_prompt(turns) if dialogue else turns[0]["content"]
    return prompt


def end_of_turn(tokenizer: Tokenizer) -> str | None:
    """The token that the chat template writes behind an answer; None where that is no end token."""
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "(answer)"}]
    behind = tokenizer.chat_template.render_turns(turns).rpartition("(answer)")[2]
    ids = tokenizer.backend.encode(behind, add_special_tokens=False).ids
    ends = [token_id for token_id in ids if token_id in tokenizer.eos_ids]
    return tokenizer.backend.id_to_token(ends[0]) if ends else None
