"""The rows of the table: their titles, and who is compared with whom."""

from eagle_jax.eagle.evaluation.systems import (
    ANCHOR,
    BEST_OF_N,
    DPO,
    EAGLE,
    ELM_DECODER,
    GREEDY_SEARCH,
    HOME,
    REFERENCE,
    TRANSFER,
    EvalRow,
    comparison_pairs,
)


def test_eagle_is_compared_with_what_it_has_to_beat():
    rows = [
        EvalRow(system=ANCHOR, environment=None),
        EvalRow(system=REFERENCE, kind="uniform"),
        EvalRow(system=EAGLE, kind="uniform"),
        EvalRow(system=REFERENCE, kind="g_optimal"),
        EvalRow(system=EAGLE, kind="g_optimal"),
        EvalRow(system=REFERENCE, kind="g_optimal", environment=TRANSFER),
        EvalRow(system=EAGLE, kind="g_optimal", environment=TRANSFER),
        EvalRow(system=BEST_OF_N, kind="g_optimal", budget="5 x 1 steps (test_calls)"),
    ]
    assert [row.title for row in rows] == [
        "anchor",
        "reference policy, uniform",
        "EAGLE, uniform",
        "reference policy, g_optimal",
        "EAGLE, g_optimal",
        "reference policy, g_optimal, other environment",
        "EAGLE, g_optimal, other environment",
        "best of 5 x 1 steps (test_calls), g_optimal",
    ]

    def pairs(rows, kinds):
        return {(rows.index(row), rows.index(other)) for row, other in comparison_pairs(rows, kinds)}

    expected = {(2, 0), (2, 1), (4, 0), (4, 3), (4, 7), (4, 2), (6, 0), (6, 5)}
    assert pairs(rows, ["g_optimal"]) == expected and len(comparison_pairs(rows, ["g_optimal"])) == 8
    assert pairs(rows[:2], ["uniform"]) == set()
    # Whichever kinds are the extra ones are compared with the others.
    assert pairs(rows, ["uniform"]) ^ expected == {(4, 2), (2, 4)}
    elm = EvalRow(system=ELM_DECODER)  # calls no environment, so no other one
    assert elm.title == "ELM decoder"
    assert pairs([*rows, elm], ["g_optimal"]) - expected == {(4, 8), (2, 8), (8, 0)}


def test_best_of_n_of_an_agent_is_compared_with_that_of_its_reference_policy_and_nobody_with_it():
    agents = [EvalRow(system=EAGLE, kind=kind) for kind in ("uniform", "g_optimal")]
    best = [
        EvalRow(system=BEST_OF_N, kind="g_optimal", budget=budget, policy=policy)
        for budget in ("5 x 1 steps", "10 x 5 steps")
        for policy in (None, EAGLE)
    ]
    assert best[1].title == "best of 5 x 1 steps, EAGLE, g_optimal"
    pairs = comparison_pairs([*agents, *best], ["g_optimal"])
    assert [pair for pair in pairs if pair[0] in best] == [(best[1], best[0]), (best[3], best[2])]
    assert {other for _, other in pairs if other in best} == {best[0], best[2]}
    # Searches of all calls have cost as much, whatever the number of their actions; others where it is the same.
    searches = [
        EvalRow(system=GREEDY_SEARCH, kind="g_optimal", budget=words, policy=policy)
        for words, policy in (
            ("9 actions x 5 steps (all_calls)", None),
            ("6 actions x 5 steps", None),
            ("4 actions x 5 steps (all_calls)", EAGLE),
            ("6 actions x 5 steps", EAGLE),
        )
    ]
    found = comparison_pairs([*searches, *best], ["g_optimal"])
    assert [(row, other) for row, other in found if other.system == GREEDY_SEARCH] == [
        (searches[2], searches[0]),
        (searches[3], searches[1]),
    ]
    assert {(row, other) for row, other in found if row in searches and other.system == BEST_OF_N} == {
        (row, other) for row in searches for other in (best[0], best[2])
    }


def test_dpo_is_compared_with_its_anchor_its_reference_and_eagle():
    anchor = EvalRow(system=ANCHOR, environment=None)
    of_kinds = [
        {system: EvalRow(system=system, kind=kind, environment=environment) for system in (REFERENCE, EAGLE, DPO)}
        for kind, environment in (("uniform", HOME), ("g_optimal", HOME), ("g_optimal", TRANSFER))
    ]
    rows = [anchor, EvalRow(system=BEST_OF_N, kind="g_optimal", budget="all_calls")]
    rows += [row for of_kind in of_kinds for row in of_kind.values()]
    pairs = [pair for pair in comparison_pairs(rows, ["g_optimal"]) if pair[0].system == DPO]
    assert pairs == [
        (of_kind[DPO], other) for of_kind in of_kinds for other in (anchor, of_kind[REFERENCE], of_kind[EAGLE])
    ]
