"""Where messages go, one folder for each kind of destination."""
