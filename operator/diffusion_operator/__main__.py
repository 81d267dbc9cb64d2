"""Entry point: `python -m diffusion_operator`."""

from __future__ import annotations

import asyncio
import os
import sys

from diffusion_operator.arguments import parse_arguments
from diffusion_operator.cluster.connection import NoConnectionError
from diffusion_operator.logs import configure_logs
from diffusion_operator.process import run
from diffusion_operator.settings_file import SETTINGS_VARIABLE, SettingsError, load_settings

EX_CONFIG = 78
"""Exit code of wrong settings. Source: sysexits.h."""


def main() -> int:
    """Run the operator until it is told to stop."""
    arguments = parse_arguments(sys.argv[1:], os.environ)
    configure_logs(arguments.log_level, arguments.log_format)
    environment = {**os.environ, **({SETTINGS_VARIABLE: arguments.settings} if arguments.settings else {})}
    try:
        return asyncio.run(run(arguments, load_settings(environment)))
    except (SettingsError, NoConnectionError) as error:
        print(f"diffusion-operator: {error}", file=sys.stderr)
        return EX_CONFIG


if __name__ == "__main__":
    sys.exit(main())
