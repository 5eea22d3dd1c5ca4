"""Losses, mining, teachers, the trainer and its recipes."""
