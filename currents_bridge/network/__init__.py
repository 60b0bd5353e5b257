"""How every client reaches the world: proxies, certificates, deadlines, AWS sessions."""
