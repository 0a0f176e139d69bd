"""The benchmark: two processes on loopback, ours and a reference taking turns.  ``make bench``."""
