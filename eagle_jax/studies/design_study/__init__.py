"""What the rules for keeping k of K candidates accept, cover and leave to explore."""
