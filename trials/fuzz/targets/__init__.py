"""What is fuzzed: each module has `test_one`, which raises for a fault, and needs no fuzzer."""
