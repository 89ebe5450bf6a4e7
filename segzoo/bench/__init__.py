"""What a training step of each method costs, measured in processes of their own: `segzoo bench`."""
