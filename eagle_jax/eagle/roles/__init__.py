"""The roles beside the policy, as small models can play them: rewriting, actions from a list, profiles from data."""
