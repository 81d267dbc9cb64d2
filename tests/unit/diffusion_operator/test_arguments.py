from __future__ import annotations

import io
import json
import logging
import re
from pathlib import Path

import pytest

from diffusion_operator.arguments import _parser, parse_arguments
from diffusion_operator.logs import configure_logs, reconcile_context

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "operator.md"


def test_without_arguments_it_serves_every_namespace_and_elects_a_leader():
    arguments = parse_arguments([], {})
    assert arguments.namespaces == ()
    assert arguments.leader_election
    assert (arguments.health_port, arguments.metrics_port) == (8080, 8081)


def test_namespaces_come_from_flags_or_else_from_the_environment():
    environment = {"DIFFUSION_OPERATOR_NAMESPACES": "b, a,,"}
    assert parse_arguments([], environment).namespaces == ("a", "b")
    assert parse_arguments(["--namespace", "c", "--namespace=d"], environment).namespaces == ("c", "d")


@pytest.mark.parametrize("arguments", [["--workers=0"], ["--log-level=loud"], ["--nonsense"]])
def test_wrong_arguments_end_with_the_usual_code(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments(arguments, {})
    assert ended.value.code == 2


def test_every_flag_is_documented():
    flags = {option for action in _parser()._actions for option in action.option_strings if option.startswith("--")} - {"--help"}
    rows = "\n".join(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `--"))
    assert flags == set(re.findall(r"`(--[a-z-]+)", rows))


def test_a_line_of_the_log_names_its_object():
    stream = io.StringIO()
    configure_logs("info", "json", stream)
    try:
        with reconcile_context("diffusionengine", "pictures", "engine-1", "abc"):
            logging.getLogger("test").info("made %s", "Job")
        logging.getLogger("test").info("quiet")
    finally:
        logging.basicConfig(handlers=[], force=True)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["message"], first["namespace"], first["name"], first["reconcileID"]) == ("made Job", "pictures", "engine-1", "abc")
    assert "namespace" not in second
