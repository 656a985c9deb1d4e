"""What is missing from a catalogue, and for whom."""
