"""Step 1: where tasks come from."""
