"""Pages, figures and statistics, whatever they tell of."""
