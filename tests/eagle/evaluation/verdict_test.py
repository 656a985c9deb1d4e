"""The sentences that a page opens with say what the intervals allow, and no more."""

from eagle_jax.eagle.evaluation.systems import ANCHOR, BEST_OF_N, EAGLE, FOR_OTHERS, MEANINGS, REFERENCE
from eagle_jax.eagle.evaluation.verdict import row_meanings, verdict_sentences


def cell(mean, half=0.1):
    return {"mean": mean, "low": mean - half, "high": mean + half}


ROWS = [
    {"row": system if system == ANCHOR else f"{system}, g_optimal", "system": system, "environment": "home"}
    for system in (ANCHOR, REFERENCE, EAGLE, FOR_OTHERS, BEST_OF_N)
]


def against(baseline, *differences, row=f"{EAGLE}, g_optimal"):
    """By the training and the held-out encoder; the row's own U are 0.7 and 0.5."""
    return [
        {
            "row": row,
            "baseline": baseline,
            "encoder": encoder,
            "difference": cell(difference),
            "utility": cell(utility),
            "baseline_utility": cell(utility - difference),
        }
        for encoder, utility, difference in zip(("train", "held_out"), (0.7, 0.5), differences, strict=True)
    ]


def said(*comparisons):
    return list(verdict_sentences(ROWS, [one for pair in comparisons for one in pair]))


def test_what_both_encoders_see_is_said_with_its_numbers():
    (sentence,) = said(
        against(ANCHOR, 0.5, 0.3),
        against("reference policy, g_optimal", 0.2, 0.15),
        against(f"{FOR_OTHERS}, g_optimal", 0.3, 0.2),
        against("best of, g_optimal", -0.4, -0.2),
    )
    assert sentence == (
        "EAGLE, g_optimal turns a text into one that its user values more: U 0.200 to 0.700, by the held-out encoder "
        "0.200 to 0.500. Training added +0.200 [+0.100, +0.300] over reference policy, g_optimal, by the held-out "
        "encoder +0.150 [+0.050, +0.250]. It acts for its user: told of another one it comes to less, by +0.300 "
        "[+0.200, +0.400], by the held-out encoder +0.200 [+0.100, +0.300]. It is below best of, g_optimal "
        "(-0.400, -0.200)."
    )


def test_what_the_held_out_encoder_does_not_see_is_not_claimed():
    (sentence,) = said(against(ANCHOR, 0.5, 0.05), against("reference policy, g_optimal", 0.05, 0.2))
    assert sentence.startswith("EAGLE, g_optimal raises U by the training encoder alone: 0.200 to 0.700; ")
    assert "Training added nothing that shows over reference policy, g_optimal: +0.050 [-0.050, +0.150]" in sentence


def test_losses_are_said():
    (sentence,) = said(
        against(ANCHOR, 0.05, -0.05),
        against("reference policy, g_optimal", -0.2, 0.3),
        against(f"{FOR_OTHERS}, g_optimal", 0.0, 0.0),
    )
    assert "is not shown to make a text that its user values more: U 0.650 to 0.700" in sentence
    assert "Training took away from reference policy, g_optimal: -0.200 [-0.300, -0.100]" in sentence
    assert "It is not shown to act for its user: " in sentence


def test_only_what_began_as_a_policy_was_trained_from_it():
    (sentence,) = said(against("reference policy, g_optimal", 0.3, 0.3, row="best of, g_optimal"))
    assert sentence == "best of, g_optimal is above reference policy, g_optimal (+0.300, +0.300)."


def test_rows_are_explained_once_by_who_wrote_them():
    told = list(row_meanings([*ROWS, ROWS[0] | {"environment": "other environment", "policy": EAGLE}]))
    assert told[0] == f"{ANCHOR}: {MEANINGS[ANCHOR]}" and len(told) == len(ROWS) + 2
    assert list(row_meanings([{"row": "of an earlier version"}])) == []
