"""From responses to the pairs that are labelled."""
