"""What fulfils the ports with the real world; only `app` imports from here."""
