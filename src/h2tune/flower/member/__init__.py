"""A member's side of a federation across machines."""
