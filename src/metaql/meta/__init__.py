"""Step 5: lifetimes, and training across tasks."""
