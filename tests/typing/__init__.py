"""Code as users write it, never run: `make types` has mypy --strict and pyright's strict mode read it.

``assert_type`` says what has to be inferred.  A line that has to be an error carries the comments that
silence it, and a comment that silences nothing is an error of its own in both.
"""
