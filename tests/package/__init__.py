"""The distribution: what is built, what a release needs, and what the repository says of itself."""
