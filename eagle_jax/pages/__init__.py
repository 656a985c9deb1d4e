"""Pages for people, served from a run's folder: rendered here, offline."""
