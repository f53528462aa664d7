"""How requests reach the daemon: its socket, the memory shared with it, deadlines, and connecting again."""
