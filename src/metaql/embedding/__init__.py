"""Step 3: from what was experienced to a task embedding."""
