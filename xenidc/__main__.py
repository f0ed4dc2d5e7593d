"""``python -m xenidc``, which the script ``xenidc`` is too: the command line, if click is there."""

from __future__ import annotations

import sys


def main() -> int:
    """Returns the exit code."""
    try:
        from xenidc import cli  # noqa: PLC0415 - the rest of the package does without it
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        print("xenidc: the command needs its extra: pip install 'xenidc[cli]'", file=sys.stderr)
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
