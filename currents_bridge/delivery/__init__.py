"""How objects become acknowledged messages: groups, progress, workers."""
