"""The entry point: every error that a user can mend ends as one sentence and an exit code, never a traceback."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape

from diffusionctl.app import app
from diffusionctl.errors import CommandError
from engine_builder.errors import BuildError


def main() -> None:
    """Run the command line."""
    console = Console(stderr=True, soft_wrap=True)
    try:
        app()
    except (CommandError, BuildError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
