"""What a text must be beside useful: fluent, about its anchor, whole."""
