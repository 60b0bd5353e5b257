"""`python -m currents_bridge`."""

from currents_bridge.cli.main import main

if __name__ == "__main__":
    main()
