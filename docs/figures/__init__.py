"""Draws the figures of README and site from runs."""
