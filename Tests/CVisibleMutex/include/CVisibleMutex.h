// Nothing to call: see CVisibleMutex.c.
