"""Pages for people, served from a run's folder: rendered here, without scripts, offline."""
