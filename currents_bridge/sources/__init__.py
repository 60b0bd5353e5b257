"""Where Currents files come from: what their keys say, which are new, and whether all of them were delivered."""
