"""Folders for the parties of a federation across machines."""
