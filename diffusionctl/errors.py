"""Errors of the command line.

CommandError
├── UsageError      2  what was typed, or the file that was named, is wrong
├── ServerError     1  Triton could not be started or refused a request
└── ClusterError    1  kubectl is missing, or the cluster refused
"""

from __future__ import annotations


class CommandError(Exception):
    """Ends the command with a sentence for the user."""

    exit_code = 1


class UsageError(CommandError):
    """What was typed, or the file that was named, is wrong."""

    exit_code = 2


class ServerError(CommandError):
    """Triton could not be started, or refused a request."""


class ClusterError(CommandError):
    """kubectl is missing, or the cluster could not be reached or refused; the message is kubectl's own."""
