"""What an ELM answers about items that it has not seen, and how consistent that is."""
