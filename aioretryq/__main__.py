"""`python -m aioretryq`, for images without scripts on PATH."""

from aioretryq.cli import main

if __name__ == "__main__":
    main(prog_name="aioretryq")
