"""This process: its signals and its memory."""
