"""The commands and their options; what they do is in the modules beside this one, imported when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine_runtime.seeds import MAX_SEED

app = typer.Typer(
    name="diffusionctl",
    help="Optimize, check and serve diffusion models from a DiffusionDeployment file.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DeploymentFile = Annotated[Path, typer.Argument(metavar="FILE", help="YAML file with one DiffusionDeployment.")]
StoreOption = Annotated[
    Path, typer.Option("--store", envvar="DIFFUSION_STORE", help="Engine store: finished stages and engines are kept here.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
SimulateOption = Annotated[
    bool,
    typer.Option(
        "--simulate-verification",
        help="Check quality in torch instead of on the compiled engine: for building ahead for a GPU that is not in this machine.",
    ),
]
DeploymentName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the DiffusionDeployment in the cluster.")]
NamespaceOption = Annotated[str | None, typer.Option("--namespace", "-n", help="Left out: that of kubectl's context.")]
ContextOption = Annotated[str | None, typer.Option(help="Context of the kubeconfig; left out: the current one.")]
DEFAULT_STORE = Path.home() / ".cache" / "diffusion-operator"


@app.command()
def validate(file: DeploymentFile, json: JsonOption = False) -> None:
    """Check a file: every wrong field is named, nothing is downloaded or built."""
    from diffusionctl.validate import validate_file

    validate_file(file, as_json=json)


@app.command()
def plan(file: DeploymentFile, store: StoreOption = DEFAULT_STORE, simulate: SimulateOption = False, json: JsonOption = False) -> None:
    """Show what would be built, why, and what is reused; changes nothing."""
    from diffusionctl.plan import show_plan

    show_plan(file, store, simulate=simulate, as_json=json)


@app.command()
def build(file: DeploymentFile, store: StoreOption = DEFAULT_STORE, simulate: SimulateOption = False, json: JsonOption = False) -> None:
    """Build the engine, or find it in the store, and print where it and its report are."""
    from diffusionctl.build import build_file

    build_file(file, store, simulate=simulate, as_json=json)


@app.command()
def run(
    file: DeploymentFile,
    store: StoreOption = DEFAULT_STORE,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Triton's HTTP port; 0 takes a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Triton's gRPC port; 0 takes a free one.")] = 8001,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Triton's metrics port; 0 takes a free one.")] = 8002,
) -> None:
    """Build if needed, serve with Triton until Ctrl-C, and print how to ask for a picture."""
    from diffusionctl.run import run_file
    from engine_runtime.triton.server import TritonPorts

    run_file(file, store, ports=TritonPorts(http=http_port, grpc=grpc_port, metrics=metrics_port))


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; its suffix chooses the format: .png, .webp or .jpg.")],
    url: Annotated[str, typer.Option(help="Triton's gRPC address.")] = "localhost:8001",
    seed: Annotated[int | None, typer.Option(min=0, max=MAX_SEED, help="Same seed, same picture; left out: a random one, printed.")] = None,
    size: Annotated[str | None, typer.Option(help="Size such as 1024x1024; left out: the engine's first.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(min=0, max=50, help="Left out: the engine's own.")] = None,
    preview_every: Annotated[int, typer.Option(min=0, max=200, help="Also write OUT.step-N every so many steps.")] = 0,
    json: JsonOption = False,
) -> None:
    """Ask a running server for one picture."""
    from diffusionctl.generate import PictureRequest, generate_picture

    request = PictureRequest(prompt=prompt, seed=seed, size=size, guidance_scale=guidance_scale, preview_every=preview_every)
    generate_picture(request, out, url=url, as_json=json)


@app.command()
def report(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="One file: its report. Several: one page that compares them.")],
    store: StoreOption = DEFAULT_STORE,
    simulate: SimulateOption = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write the page; report.html if left out.")] = None,
) -> None:
    """Write the HTML report of a finished build, or one that compares several."""
    from diffusionctl.report import write_report

    write_report(files, store, out, simulate=simulate)


@app.command()
def retry(name: DeploymentName, namespace: NamespaceOption = None, context: ContextOption = None) -> None:
    """In a cluster: build a deployment's engine again after a failure; finished stages are reused."""
    from diffusionctl.cluster import Cluster
    from diffusionctl.retry import retry_build

    retry_build(name, Cluster(namespace, context))


@app.command()
def history(name: DeploymentName, namespace: NamespaceOption = None, context: ContextOption = None, json: JsonOption = False) -> None:
    """In a cluster: list a deployment's revisions and what became of each."""
    from diffusionctl.cluster import Cluster
    from diffusionctl.revisions import show_history

    show_history(name, Cluster(namespace, context), as_json=json)


@app.command()
def undo(
    name: DeploymentName,
    to_revision: Annotated[int | None, typer.Option(min=1, help="Left out: the one before, unless it was given up.")] = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """In a cluster: go back to an earlier revision of a deployment, as `history` lists them."""
    from diffusionctl.cluster import Cluster
    from diffusionctl.revisions import undo as undo_rollout

    undo_rollout(name, Cluster(namespace, context), number=to_revision)
