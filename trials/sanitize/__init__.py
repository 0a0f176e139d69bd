"""The test suite on a build with AddressSanitizer and UndefinedBehaviorSanitizer."""
