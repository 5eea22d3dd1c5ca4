"""What happens beside the steps of training: reports, checkpoints, measurements."""
