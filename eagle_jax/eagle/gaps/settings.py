"""What `eagle-jax gaps` is told by its flags."""

from __future__ import annotations

from eagle_jax.base.settings import setting, settings


@settings
class GapSettings:
    """How a catalogue is searched for what is missing."""

    seed: int = setting("Of walks, balls and draws.", default=0, at_least=0)
    region_share: float = setting("Of the imagined texts, those in a region.", default=0.1, above=0, below=1)
    wanted_share: float = setting("Of the imagined texts, those that a user wants.", default=0.2, above=0, below=1)
    num_centers: int = setting("Places that are looked at.", default=400, at_least=1)
    num_draws: int = setting("Complete catalogues that chance is read from.", default=400, at_least=19)
    level: float = setting("Of false alarms on a complete catalogue.", default=0.05, above=0, below=1)
    num_groups: int = setting("Groups of users of similar taste.", default=8, at_least=1)
    num_regions: int = setting("Regions that are told, the largest.", default=10, at_least=1)


@settings
class WalkSettings:
    """How the environment is asked what could exist."""

    seed: int = setting("Of the walks.", default=0, at_least=0)
    num_walks: int = setting("Texts in all, of each walk the last.", default=2000, at_least=2)
    num_steps: int = setting("Rewritings of each walk.", default=12, at_least=1)
    instructions_per_step: int = setting("Told in one rewriting.", default=2, at_least=1)
