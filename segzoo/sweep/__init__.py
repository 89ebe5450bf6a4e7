"""Sweeps without a server: what wandb's files ask for, drawn by wandb's own search and trained one folder per set."""
