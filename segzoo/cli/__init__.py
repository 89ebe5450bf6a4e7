"""The command `segzoo`. Nothing here imports torch before a command needs it."""
