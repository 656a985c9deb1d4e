"""Losses, optimisers and training loops."""
