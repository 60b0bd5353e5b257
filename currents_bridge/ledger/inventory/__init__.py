"""Which objects there are: admitted, changed, excluded, folded."""
