"""`python -m h2tune`: the command line."""

from h2tune.cli.main import main

if __name__ == "__main__":
    main()
