"""Episodes' records, of which a test says only what matters to it."""

from eagle_jax.eagle.evaluation.episodes import EpisodeRecord


def make_record(utilities, steps, **changes):
    """From an anchor through `steps`: the anchor's utility, then that after each, under both encoders."""
    path = tuple({"utility": u, "user_term": u / 2, "neighbor_distance_term": u / 4} for u in utilities)
    values = {
        "seed": 0,
        "entity_index": 0,
        "user_index": 0,
        "anchor": "a",
        "profile": "p",
        "steps": tuple(steps),
        "scores": {"train": path, "held_out": path},
        "distance": 1.0,
        "num_steps": len(steps),
        "environment_calls": len(steps),
        "malformed": {},
        "rater": None,
    }
    return EpisodeRecord(**(values | changes))
