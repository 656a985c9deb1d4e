"""The result tables: a column that tells nothing is a sentence, and shares say of how many starts they are."""

from eagle_jax.eagle.evaluation.report_tables import result_tables
from eagle_jax.eagle.evaluation.table import REACHABLE_SHARE


def cell(mean):
    return {"mean": mean, "low": mean, "high": mean}


def row(name, utility, improved, share=None):
    cells = {"train/utility": cell(utility), "train/improved_share": cell(improved), "well_formed_share": cell(1.0)}
    cells |= {"train/gain": None, REACHABLE_SHARE: share and cell(share)}
    return {"row": name, "num_episodes": 48, "num_pairs": 24, "num_seeds": 2, "cells": Cells(cells)}


class Cells(dict):
    """What was not measured is None."""

    def __missing__(self, name):
        return None


def tables(*rows, num_reachable=None):
    return {group["title"]: group for group in result_tables(rows, num_reachable)}


def test_a_column_that_is_the_same_in_all_rows_is_a_sentence():
    found = tables(row("anchor", 0.25, 0.5), row("EAGLE", 0.75, 0.5))
    steering = found["Does it steer? Scored by the training encoder"]
    head = steering["table"].splitlines()[0]
    assert "| U |" in head and "Improved" not in head
    assert "- Improved: Share of episodes with a gain above 0. In all rows: 0.500." in steering["meanings"]
    assert "In all rows" not in next(line for line in steering["meanings"].splitlines() if line.startswith("- U:"))


def test_a_column_that_is_next_to_the_same_is_a_sentence_with_its_ends():
    first, second, third = row("anchor", 0.25, 0.5), row("EAGLE", 0.75, 0.504), row("DPO", 0.5, 0.5)
    third["cells"]["train/improved_share"] = None
    found = tables(first, second, third)["Does it steer? Scored by the training encoder"]
    assert "Improved" not in found["table"] and "In all rows that have it: 0.500 to 0.504." in found["meanings"]
    assert (
        "Improved" in tables(first, row("EAGLE", 0.75, 0.506))["Does it steer? Scored by the training encoder"]["table"]
    )


def test_where_all_columns_are_the_same_there_are_sentences_only():
    found = tables(row("anchor", 0.25, 0.5), row("EAGLE", 0.75, 0.5))
    texts = found["What became of the texts, and what it cost"]
    assert texts["table"] == ""
    assert "nothing was malformed. In all rows: 1.000" in texts["meanings"]


def test_a_single_row_keeps_its_columns():
    (group, *_) = tables(row("EAGLE", 0.75, 0.5)).values()
    assert "Improved" in group["table"] and "In all rows" not in group["meanings"]


def test_the_share_of_what_can_be_reached_says_of_how_many_starts_it_is():
    rows = row("anchor", 0.25, 0.0, share=0.001), row("EAGLE", 0.75, 1.0, share=0.5)
    group = tables(*rows, num_reachable=24)["Does it steer? Scored by the training encoder"]
    assert (
        "| Share of reachable, 24 starts |" in group["table"]
        and "- Share of reachable, 24 starts: " in group["meanings"]
    )
