"""What everything stands on, with no word of any domain: files, checkpoints, settings, metrics."""
