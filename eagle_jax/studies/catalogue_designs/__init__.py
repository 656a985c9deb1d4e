"""The designs of a whole catalogue, streamed over devices or threads."""
