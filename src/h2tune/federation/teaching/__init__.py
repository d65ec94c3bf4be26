"""Teachers on public texts: what clients exchange before the first round, and the lesson that each makes of it."""
