"""``python -m fsat``."""

from fsat.cli import main

if __name__ == "__main__":
    main()
