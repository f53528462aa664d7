"""The demonstration: a conversation leaves the engine's memory and comes back to another process."""
