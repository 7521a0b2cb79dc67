"""Step 4: from the belief to Q(s, .) and an action."""
