"""The actors: one file a role, the channel between them, the supervisor over them."""
