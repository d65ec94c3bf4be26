"""Scoring of generated answers; generated programs run in a sandbox."""
