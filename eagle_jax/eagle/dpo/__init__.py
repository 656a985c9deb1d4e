"""The policy's training by DPO, in the place of REINFORCE."""
