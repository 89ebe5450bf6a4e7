"""A comparison of methods: its rows and seeds, the trainings that they need, and one table of their scores."""
