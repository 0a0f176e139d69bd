"""What goes wrong between peers, small; trials.faults does it at full size."""
