"""What building and testing need besides."""
