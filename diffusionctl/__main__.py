"""The entry point: every error that a user can mend ends as one sentence and an exit code, never a traceback."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape

from diffusionctl.app import app
from diffusionctl.errors import CommandError
from engine_builder.errors import BuildError
from engine_builder.failures import as_build_error


def main() -> None:
    """Run the command line."""
    console = Console(stderr=True, soft_wrap=True)
    try:
        app()
    except (CommandError, BuildError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        sys.exit(error.exit_code)
    except (OSError, ModuleNotFoundError, MemoryError) as error:  # The machine's doing; anything else is a bug, with its traceback.
        failure = as_build_error(error)
        console.print(f"[bold red]error:[/] {escape(str(failure))}", highlight=False)
        sys.exit(failure.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
