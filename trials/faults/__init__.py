"""What goes wrong between processes, made to go wrong on purpose: each scenario is a module."""
