"""Expert iteration before REINFORCE: the policy imitates the best of many actions in the same state."""
