"""The parts of test_stateful.py: where sessions are kept, and what is done to them."""
