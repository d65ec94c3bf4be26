"""The h2tune method: its strategy, what travels, and the client model that takes part."""
