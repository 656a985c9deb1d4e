"""What every training shares: losses, optimisers, the loop, supervised training."""
