"""What roletalk stands: slow trials, each run by one command, which end in figures with their bounds."""
