"""The policy's training by REINFORCE."""
