"""Entry point: `python -m diffusion_operator`."""

from __future__ import annotations

import os
import sys

from diffusion_operator.arguments import parse_arguments


def main() -> int:
    """Run the operator until it is told to stop."""
    parse_arguments(sys.argv[1:], os.environ)
    return 0


if __name__ == "__main__":
    sys.exit(main())
