"""The marked texts that language models read and write: rendering, parsing, prompts of all roles.

A text is a row of named blocks, `#BEGIN_PLOT ... #END_PLOT` (Tennenholtz et al. 2024, appendix).
A prompt is an instruction, the blocks the role may see, and the opening marker of what it has to
write; generation stops at the closing marker. What cannot be read back raises `MalformedText`
with a short `reason`, so that callers can count failures by kind.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

_MARKER = re.compile(r"#(?:BEGIN|END)_[A-Z_]+")
_EMPTY_BLOCK = re.compile(r"\s*#BEGIN_([A-Z_]+)\s*#END_\1\b")
_SIGN_OF_MARKER = re.compile(r"#+(?=(?:BEGIN|END)_)")


class MalformedText(ValueError):
    """A text that does not have the blocks it should have; `reason` is the kind, for counting."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class EntityFormat:
    """How one kind of entity is told and edited."""

    noun: str
    blocks: tuple[str, ...]
    action_categories: tuple[str, ...]


MOVIE = EntityFormat(
    noun="film",
    blocks=("PLOT", "REASONS_TO_LIKE", "REASONS_TO_DISLIKE"),
    action_categories=(
        "plot changes",
        "character enhancements",
        "visual and storytelling improvements",
        "thematic exploration",
        "audience appeal adjustments",
    ),
)
PRODUCT = EntityFormat(
    noun="product",
    blocks=("DESCRIPTION", "REASONS_TO_LIKE", "REASONS_TO_DISLIKE"),
    action_categories=(
        "design and aesthetics",
        "functionality and fit",
        "material and sustainability",
        "marketing and branding",
        "features and details",
    ),
)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What a model is asked: `text` ends in `opening`, the marker of the block it has to write.

    Where it is too long for a model, the blocks named in `may_be_cut` are shortened at their ends.
    `answer_start` stands behind the text, in a chat in the assistant's turn: the answer begins with it.
    """

    text: str
    stop: tuple[str, ...]
    opening: str
    may_be_cut: tuple[str, ...] = ()
    answer_start: str = ""

    def closed(self, completion: str) -> str:
        """What a model is to write, with the marker that ends it."""
        return f"{completion} {self.stop[0]}"


def begin(block: str) -> str:
    return f"#BEGIN_{block}"


def end(block: str) -> str:
    return f"#END_{block}"


def render_block(block: str, text: str) -> str:
    """One marked block; the text may hold no marker of its own."""
    text = " ".join(text.split())
    if marker := _MARKER.search(text):
        raise MalformedText("marker_in_text", f"{marker.group()} inside the text of {block}")
    return " ".join(part for part in (begin(block), text, end(block)) if part)


def quote_markers(text: str) -> str:
    """The text with `BEGIN_X` for `#BEGIN_X`: shown inside of a block, it cannot close it."""
    return _SIGN_OF_MARKER.sub("", text)


def render_blocks(blocks: Mapping[str, str]) -> str:
    """Marked text of all blocks, in the order given."""
    return " ".join(render_block(name, text) for name, text in blocks.items())


def parse_blocks(text: str, names: Sequence[str], may_be_empty: bool = False) -> dict[str, str]:
    """Read back what `render_blocks` wrote: all of `names`, in order, and nothing else.

    Raises `MalformedText` with reason `missing_block`, `wrong_markers`, `text_outside_blocks` or
    `empty_block`.
    """
    expected = [marker(name) for name in names for marker in (begin, end)]
    found = _MARKER.findall(text)
    if found != expected:
        missing = [marker for marker in expected if marker not in found]
        reason = "missing_block" if missing else "wrong_markers"
        raise MalformedText(reason, f"expected {' '.join(expected)}, found {' '.join(found)}")
    pieces = [" ".join(piece.split()) for piece in _MARKER.split(text)]
    if outside := "".join(pieces[0::2]):
        raise MalformedText("text_outside_blocks", outside[:80])
    blocks = dict(zip(names, pieces[1::2], strict=True))
    for name, content in blocks.items():
        if not content and not may_be_empty:
            raise MalformedText("empty_block", name)
    return blocks


def full_blocks(text: str, names: Sequence[str]) -> dict[str, str]:
    """The blocks of a text that are not empty, of `names`; raises `MalformedText`."""
    return {name: content for name, content in parse_blocks(text, names, may_be_empty=True).items() if content}


def without_empty_blocks(text: str) -> str:
    """The text as it is shown: what the data leave empty tells nothing."""
    return _EMPTY_BLOCK.sub("", text)


def cut_spans(prompt: Prompt) -> list[tuple[int, int]]:
    """Where the texts of blocks that may be cut stand in the prompt: characters [start, end)."""
    names = "|".join(map(re.escape, prompt.may_be_cut))
    block = re.compile(rf"#BEGIN_({names})\b(.*?)#END_\1\b", re.DOTALL)
    return [match.span(2) for match in block.finditer(prompt.text)] if names else []


def parse_completion(prompt: Prompt, completion: str, names: Sequence[str]) -> dict[str, str]:
    """Blocks of what a model wrote after `prompt`, its closing marker cut off by the sampler."""
    return parse_blocks(f"{prompt.opening} {prompt.closed(completion)}", names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptBook:
    """The instructions of all roles; `{noun}` and `{category}` are filled in.

    `COMPACT` is short enough for the smallest models; `DETAILED` is for instruction-tuned ones.
    """

    rewrite: str
    policy: str
    generic_action: str
    personalised_action: str
    profile: str
    describe: str
    rater: str
    write: str
    compare: str


COMPACT = PromptBook(
    rewrite="rewrite the {noun} as the action says.",
    policy="write an action that makes this {noun} better for this user.",
    generic_action="write an action of the kind {category}.",
    personalised_action="write an action of the kind {category} for this user.",
    profile="write the profile of a user with these ratings.",
    describe="describe the {noun} {title}.",
    rater="answer the rater form for this user about text a and text b.",
    write="write a {noun} for this user.",
    compare="answer a for text a, b for text b: the text the user loves.",
)
DETAILED = PromptBook(
    rewrite=(
        "Below is a {noun} and an action that changes it. Rewrite the {noun} so that it follows "
        "the action and is otherwise the same. Keep the blocks and their markers: first what it "
        "is, then reasons to like it, then reasons to dislike it."
    ),
    policy=(
        "Below is a {noun} and the profile of a user. Write one action: a short instruction that "
        "changes the {noun} into one that this user would value more than anything that exists."
    ),
    generic_action=(
        "Below is a {noun}. Write one action: a short, concrete instruction of the kind "
        "'{category}' that would change it."
    ),
    personalised_action=(
        "Below is a {noun} and the profile of a user. Write one action: a short, concrete "
        "instruction of the kind '{category}' that changes the {noun} towards what this user likes."
    ),
    profile=(
        "Below is what a user rated high and low. Describe the user's preferences in five parts: "
        "overall, genre, director, aesthetic, other. Name no title and no rating."
    ),
    describe="Tell the {noun} '{title}', then reasons to like it, then reasons to dislike it.",
    rater=(
        "Below is a user profile and two texts, A and B. Answer the eleven questions of the rater "
        "form as this user would: the number of the question, then the answer. 1 which would the "
        "user prefer (A/B); 2 which matches the profile better (A/B); 3, 4 the user's score for "
        "A, for B (1-5); 5 A and B are different (1-5); 6, 7 I would watch A, B (1-5); 8 which do "
        "you prefer (A/B); 9, 10 A, B exists already (1-5); 11 which would a wider audience like "
        "(A/B)."
    ),
    write=(
        "Below is the profile of a user. Write a {noun} that this user would value: first what it "
        "is, then reasons to like it, then reasons to dislike it, each between its markers."
    ),
    compare=(
        "Below is a request and two responses to it, A and B. Which one answers the request "
        "better? Answer with one letter: a or b."
    ),
)
PROMPT_BOOKS = {"compact": COMPACT, "detailed": DETAILED}


def _prompt(parts: Sequence[str], first: str, last: str, may_be_cut: tuple[str, ...] = ()) -> Prompt:
    opening = begin(first)
    return Prompt(" ".join([*parts, opening]), (end(last),), opening, may_be_cut)


def environment_prompt(book: PromptBook, fmt: EntityFormat, description: str, action: str) -> Prompt:
    """The environment rewrites the entity under the action; it sees no profile, no embedding."""
    parts = [book.rewrite.format(noun=fmt.noun), description, render_block("ACTION", action)]
    return _prompt(parts, fmt.blocks[0], fmt.blocks[-1], fmt.blocks[:1])


def policy_prompt(book: PromptBook, fmt: EntityFormat, description: str, profile: str) -> Prompt:
    """The agent's state: entity text and user profile."""
    parts = [
        book.policy.format(noun=fmt.noun),
        without_empty_blocks(description),
        render_block("USER_PROFILE", profile),
    ]
    return _prompt(parts, "ACTION", "ACTION", ("USER_PROFILE", fmt.blocks[0]))


def generic_action_prompt(book: PromptBook, fmt: EntityFormat, description: str, category: str) -> Prompt:
    """Ask the generator for a change of one category."""
    parts = [book.generic_action.format(noun=fmt.noun, category=category), without_empty_blocks(description)]
    return _prompt(parts, "ACTION", "ACTION", fmt.blocks[:1])


def personalised_action_prompt(
    book: PromptBook, fmt: EntityFormat, description: str, category: str, profile: str
) -> Prompt:
    """Ask the generator for a change of one category that suits a user."""
    instruction = book.personalised_action.format(noun=fmt.noun, category=category)
    parts = [instruction, without_empty_blocks(description), render_block("USER_PROFILE", profile)]
    return _prompt(parts, "ACTION", "ACTION", ("USER_PROFILE", fmt.blocks[0]))


def profile_prompt(book: PromptBook, liked: Sequence[str], disliked: Sequence[str]) -> Prompt:
    """Ask for a user profile from the titles a user rated high and low."""
    parts = [book.profile]
    for block, titles in (("LIKED", liked), ("DISLIKED", disliked)):
        parts.append(render_block(block, "; ".join(titles)))
    return _prompt(parts, "USER_PROFILE", "USER_PROFILE", ("LIKED", "DISLIKED"))


def describe_prompt(book: PromptBook, fmt: EntityFormat, title: str) -> Prompt:
    """Ask a model to tell an entity that it knows by its title."""
    parts = [book.describe.format(noun=fmt.noun, title=title)]
    return _prompt(parts, fmt.blocks[0], fmt.blocks[-1])


def rater_prompt(book: PromptBook, text_a: str, text_b: str, profile: str) -> Prompt:
    """Ask a rater the eleven questions about two texts, blind to which one was generated."""
    parts = [book.rater, render_block("USER_PROFILE", profile), "a", text_a, "b", text_b]
    return _prompt(parts, "ANSWERS", "ANSWERS", ("USER_PROFILE",))


def write_prompt(book: PromptBook, fmt: EntityFormat, profile: str) -> Prompt:
    """Ask for an entity of the model's own that suits a user."""
    parts = [book.write.format(noun=fmt.noun), render_block("USER_PROFILE", profile)]
    return _prompt(parts, fmt.blocks[0], fmt.blocks[-1], ("USER_PROFILE",))


def compare_prompt(book: PromptBook, request: str, text_a: str, text_b: str) -> Prompt:
    """Ask which of two responses to a request is better: block ANSWER, "a" or "b".

    Request and responses may hold markers; they are quoted.
    """
    shown = {"REQUEST": request, "TEXT_A": text_a, "TEXT_B": text_b}
    blocks = {name: quote_markers(text) for name, text in shown.items()}
    return _prompt([book.compare, render_blocks(blocks)], "ANSWER", "ANSWER", tuple(shown))
