"""What could be gained at most, asked before anything is trained."""
