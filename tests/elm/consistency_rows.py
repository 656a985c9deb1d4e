"""Rows of an ELM's tables, as a run writes them, by hand."""

from eagle_jax.elm.verdict import FILM_MIXTURE, SINGLE, TWO, USER_MIXTURE

PROFILE = "user_profile"
GROUPS = {
    SINGLE: ["summary", "pitch"],
    TWO: ["similarities"],
    PROFILE: [PROFILE],
    "summary": ["summary"],
    "pitch": ["pitch"],
    "similarities": ["similarities"],
    FILM_MIXTURE: [FILM_MIXTURE],
    USER_MIXTURE: [USER_MIXTURE],
}
_SC = {"elm": 0.8, "teacher": 0.9, "nearest": 0.6, "text_only": 0.5}
_MIXED = ("elm", "text_only")  # who answers about mixtures


def cell(mean, half=0.02):
    return {"mean": mean, "low": mean - half, "high": mean + half}


def row(group, system):
    if group in (PROFILE, USER_MIXTURE):
        cells = {"bc/ndcg": cell(_SC[system] - 0.1), "bc/spearman": cell(0.25)}
    elif group in (TWO, "similarities", FILM_MIXTURE):
        cells = {"sc": cell(_SC[system] - 0.125)}
    else:
        cells = {"sc": cell(_SC[system]), "slots": cell(0.875), "bc/spearman": cell(0.375)}
    return {
        "group": group,
        "system": system,
        "num_outputs": 30,
        "num_entities": 10,
        "num_seeds": 3,
        "cells": cells,
        "malformed": {},
    }


def all_rows():
    return [
        row(group, system) for group in GROUPS for system in (_MIXED if group in (FILM_MIXTURE, USER_MIXTURE) else _SC)
    ]


def comparison(group, baseline, measure, difference):
    return {
        "group": group,
        "system": "elm",
        "baseline": baseline,
        "measure": measure,
        "system_mean": cell(0.8),
        "baseline_mean": cell(0.8 - difference),
        "difference": cell(difference),
        "separated": difference > 0.15,
    }


def mixtures():
    return [
        comparison(FILM_MIXTURE, "text_only", "sc", 0.2),
        comparison(FILM_MIXTURE, "text_only_example", "sc", 0.3),
        comparison(USER_MIXTURE, "text_only", "bc/ndcg", 0.1),
    ]


def curve(kind, path, means, name="a path"):
    measure = "sc/point" if kind == "semantic" else "bc/ndcg"
    positions = [0.0, 0.5, 1.0] if path == "interpolation" else [0.0, 1.0, 2.0]
    return {
        "name": name,
        "kind": kind,
        "path": path,
        "how": None,
        "task": "summary",
        "tag": None if path == "interpolation" else "funny",
        **({"chance": {"bc/ndcg": 0.3}, "truth": {"bc/ndcg": 0.6}} if kind == "behavioral" else {}),
        "rows": [
            {"position": at, "num_outputs": 8, "num_malformed": 0, "cells": {measure: cell(mean)}}
            for at, mean in zip(positions, means, strict=True)
        ],
    }
