"""Pages, and the scripts behind their numbers."""
