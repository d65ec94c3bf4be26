"""Whether a generated answer is right; generated programs run in a sandbox."""
