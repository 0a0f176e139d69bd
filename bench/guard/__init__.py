"""What a request costs in things that can be counted, compared with the committed baseline."""
