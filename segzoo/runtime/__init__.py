"""What a process of ours asks of its machine: memory, a device, a folder for itself alone, and an end when it cannot go on."""
