"""Who is in the table of an evaluation, and who is compared with whom."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

# Who wrote the texts of a row: nobody, models as policies, best-of-N with a reference policy or with instructions of
# the ceiling, ELM, the ceiling's best instruction whatever the pair, a rule that changes fields by the reward.
ANCHOR, REFERENCE, EAGLE, DPO = "anchor", "reference policy", "EAGLE", "DPO"
EXPERT = "imitation of chosen actions"  # where EAGLE began, if not as the reference policy
FOR_OTHERS = "EAGLE, profiles of other users"  # the same agents, told of another user: what is lost was personal
BEST_OF_N, GREEDY_SEARCH, ELM_DECODER = "best of", "greedy search", "ELM decoder"
ONE_FOR_ALL, FIELD_CHANGES = "one instruction for all", "changes of fields by rule"
# Who choose among known actions: by what each does on average, or by a model of what it makes of a text.
HEAD, PLANNER = "head over listed actions", "planner"
HOME, TRANSFER = "home", "other environment"  # the one that agents were trained in, and another


def for_others(system: str) -> str:
    """A system that chooses among actions, where it acts for another user than it is judged by."""
    return f"{system}, other users"


def by_profile(system: str) -> str:
    """A system that chooses among actions, where it is told of a user what a policy is: the profile."""
    return f"{system}, by profile"


# What each of them is, for readers who have not seen the code.
MEANINGS = {
    ANCHOR: "the existing text, unchanged.",
    REFERENCE: "where training begins: a policy that was taught to ask for what the design keeps of the candidate "
    "actions; g_optimal, uniform and the like name the design.",
    EXPERT: "the reference policy, taught in addition to ask for the actions that the reward preferred to others.",
    EAGLE: "the policy after reinforcement learning.",
    DPO: "the policy after training on pairs of better and worse actions, in the place of reinforcement learning.",
    FOR_OTHERS: "the same agents, told the profile of another user than the one whom the text is for.",
    BEST_OF_N: "so many episodes of so many steps, of which the text with the best reward counts. Equal calls: as many "
    "calls of the environment as an episode of EAGLE takes, or as many as that and its share of the training.",
    GREEDY_SEARCH: "so many actions are tried at each step, and the text with the best reward is gone on from.",
    ELM_DECODER: "a model that reads embeddings tells the point of best U near the anchor; nothing is rewritten.",
    ONE_FOR_ALL: "the instruction that is best on average, whoever the user is.",
    FIELD_CHANGES: "genres and year are replaced by those that the reward likes best; no model writes.",
    HEAD: "takes the listed action that, by its mean effect, promises most to the user's embedding.",
    PLANNER: "takes the action that promises most by a learned model of what actions make of texts.",
    **{for_others(s): "the same, told the embedding of another user." for s in (HEAD, PLANNER)},
    **{by_profile(s): "the same, told of the user what the profile tells, as policies are." for s in (HEAD, PLANNER)},
}


# Whose rows a row is compared with, where kind and environment are its own or there are none. What
# is added here and to the contestants of a run is a row, and what EAGLE has to beat.
COMPARED = {
    ELM_DECODER: (ANCHOR,),
    EXPERT: (REFERENCE,),
    EAGLE: (
        *(ANCHOR, REFERENCE, EXPERT, FOR_OTHERS, ONE_FOR_ALL, BEST_OF_N, GREEDY_SEARCH, FIELD_CHANGES, ELM_DECODER),
        HEAD,
    ),
    HEAD: (ANCHOR, for_others(HEAD), ONE_FOR_ALL, BEST_OF_N, FIELD_CHANGES),
    PLANNER: (
        *(ANCHOR, by_profile(PLANNER), for_others(PLANNER), REFERENCE, EXPERT, EAGLE, BEST_OF_N, GREEDY_SEARCH),
        *(HEAD, ONE_FOR_ALL, FIELD_CHANGES),
    ),
    by_profile(PLANNER): (ANCHOR, REFERENCE, EXPERT, EAGLE, BEST_OF_N, GREEDY_SEARCH, ONE_FOR_ALL),
    DPO: (ANCHOR, REFERENCE, EAGLE),
    GREEDY_SEARCH: (ANCHOR, ONE_FOR_ALL, BEST_OF_N, FIELD_CHANGES),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalRow:
    """What a row of the table is about.

    kind: of the reference policy behind it. environment: where its texts belong; None: anywhere.
    budget: of best-of-N and search, in words. policy: whose actions these choose among; None: the reference policy's.
    """

    system: str
    kind: str | None = None
    environment: str | None = HOME
    budget: str | None = None
    policy: str | None = None

    @property
    def title(self) -> str:
        """What people see."""
        name = self.system if self.budget is None else f"{self.system} {self.budget}"
        place = self.environment if self.environment == TRANSFER else None
        return ", ".join(part for part in (name, self.policy, self.kind, place) if part)


def _of_equal_calls(row: EvalRow) -> EvalRow:
    """A search without the number of its actions: as many calls in all are fewer of these for who was trained."""
    return dataclasses.replace(row, budget=row.budget.partition(" actions")[2]) if row.system == GREEDY_SEARCH else row


def comparison_pairs(rows: Sequence[EvalRow], extra_kinds: Sequence[str]) -> list[tuple[EvalRow, EvalRow]]:
    """Who is compared with whom (`COMPARED`); EAGLE's extra kinds with its other ones too, and best-of-N and search
    with an agent with the same of its reference policy."""
    pairs = []
    for row in rows:
        if row.policy is not None:
            own = _of_equal_calls(dataclasses.replace(row, policy=None))
            pairs += [(row, other) for other in rows if _of_equal_calls(other) == own]
        for system in COMPARED.get(row.system, ()):
            pairs += [
                (row, other)
                for other in rows
                if (other.system, other.policy) == (system, None)
                and (None in (other.kind, row.kind) or other.kind == row.kind)
                and other.environment in (None, row.environment)
            ]
        if row.system == EAGLE and row.environment == HOME and row.kind in extra_kinds:
            pairs += [
                (row, other) for other in rows if (other.system, other.environment) == (EAGLE, HOME) and other != row
            ]
    return pairs
