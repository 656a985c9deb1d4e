"""How an agent begins by imitation."""

from eagle_jax.base.settings import setting, settings
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.stages.supervised import ReferenceStageSettings


@settings
class ExpertSettings:
    """Expert iteration (Anthony et al. 2017) with the gains that an action has for every user."""

    num_episodes: int = setting("In whose states the reference policy's actions are tried.", at_least=1)
    actions_per_state: int = setting("Drawn with the profiles of as many users; equal ones are tried once.", at_least=2)
    sampling: SamplingSettings = setting("Of these actions; a higher temperature finds more different ones.")
    users_per_state: int = setting(
        "Training users for whom one of a state's actions is chosen, the episode's own first.", at_least=1
    )
    gain_temperature: float = setting(
        "An action is chosen with a probability that grows as exp(gain / gain_temperature).", above=0, unit="reward"
    )
    candidates: bool = setting(
        "The candidates of the reference policy are choices too: what each leads to is known at no further call.",
        default=False,
        later=True,
    )
    fit: ReferenceStageSettings = setting("Of the policy on the chosen actions, from the reference policy on.")
