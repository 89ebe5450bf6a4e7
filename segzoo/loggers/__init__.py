"""Where a run's numbers go: ``metrics.csv`` always, TensorBoard and wandb on request, none of which ends a training."""
