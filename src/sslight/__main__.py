"""``python -m sslight``, also under torchrun."""

from sslight.cli.main import main

if __name__ == "__main__":
    main()
