"""How the ceiling is measured."""

from eagle_jax.base.settings import setting, settings
from eagle_jax.eagle.roles.listed_actions import ListedActionSettings


@settings
class CeilingSettings:
    """The best of some fixed instructions for each of some anchors and users."""

    num_anchors: int = setting("Validation anchors that are rewritten.", at_least=2)
    num_users: int = setting("Users of the split for whom the best is chosen; fewer where there are fewer.", at_least=2)
    instructions: ListedActionSettings = setting("The same for every anchor.")
    stops: bool = setting("The run ends here where nothing is shown to be gained.")

    def __post_init__(self):
        if self.instructions.num_candidates < 2:
            raise ValueError("instructions.num_candidates must be at least 2, got 1: the best of one is no choice")
