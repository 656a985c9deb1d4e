"""How a planner learns."""

from eagle_jax.base.settings import setting, settings
from eagle_jax.embeddings.regression_head import DomainEncoderSettings


@settings
class PlannerSettings:
    """Rounds of episodes with the model fitted to all transitions so far (Dyna: Sutton 1991)."""

    num_rounds: int = setting("After each of which the model is fitted anew.", at_least=0)
    episodes_per_round: int = setting("On training starts.", at_least=1)
    exploration_temperature: float = setting(
        "In rounds an action is drawn with a probability that grows as exp(promise / exploration_temperature).",
        above=0,
        unit="reward",
    )
    random_share: float = setting(
        "Of the rounds' actions, drawn evenly from all that are known.", at_least=0, at_most=1
    )
    dynamics: DomainEncoderSettings = setting("The model, from features of text and action to the text's move.")
