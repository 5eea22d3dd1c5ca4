"""The loop: batches, what is minimised, memory, devices, checkpoints."""
