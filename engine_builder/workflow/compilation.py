"""The `export` and `compile` stages: an artifact a component and a piece, so that a changed recipe repeats only what it changes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diffusion_api.build_job import Verification
from diffusion_api.build_report import PieceReport
from diffusion_api.engine_manifest import Piece, TensorSpec
from diffusion_api.recipe import NoStepCache, Precision
from engine_builder.compilers import CompileRequest, profile_of
from engine_builder.families.base import GraphModule
from engine_builder.planning import is_emulated
from engine_builder.quiet_imports import quiet_imports
from engine_builder.stage_runner import StageResult
from engine_builder.store import require_free_space
from engine_builder.workflow.context import BuildContext
from engine_builder.workflow.quantization_stage import weight_bytes
from engine_builder.workflow.search import Choice, candidate_simulation

TRANSFORMER = "transformer"
TRANSFORMER_PIECES = ("transformer_prelude", "transformer_body", "transformer_head")
GRAPHS_FILE = "graphs.json"
PIECE_FILE = "piece.json"
MIB = 2**20
WIDTHS = {Precision.FP32: 4, Precision.FP16: 2, Precision.BF16: 2}
"""Bytes of a number."""


@dataclass(frozen=True)
class CompiledEngine:
    """The compiled pieces of one recipe."""

    pieces: Mapping[str, Piece]
    folders: Mapping[str, Path]
    """By piece, where its files lie."""
    reports: tuple[PieceReport, ...]
    warnings: tuple[str, ...]
    digest: str
    uncached: CompiledEngine | None = None
    """The same recipe without its step cache, which says what the cache gains; None where it has none, or no engine is run here."""

    @property
    def size_mib(self) -> float:
        """Size of all compiled files."""
        return sum(report.compiled_mib for report in self.reports)


@dataclass(frozen=True)
class ExportedPiece:
    """One exported graph in the store."""

    name: str
    onnx: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    size_mib: float
    relative_error: float | None
    parity_size: str
    digest: str


def build_pieces(context: BuildContext, choice: Choice) -> CompiledEngine:
    """Export and compile what a recipe needs: one transformer without a step cache, its three pieces with one.

    With one the whole transformer is compiled besides, for what the cache gains is measured, and another recipe may want it.
    """
    exported = [piece for component in context.family.components for piece in export_stage(context, choice, component)]
    context.release()  # Compiling needs the memory, and the export may have cast the model or moved it off the GPU.
    if isinstance(choice.step_cache, NoStepCache):
        return _engine([(piece, compile_stage(context, choice, piece)) for piece in exported if piece.name not in TRANSFORMER_PIECES])
    is_run = context.job.verification is Verification.ENGINE
    results = [(piece, compile_stage(context, choice, piece)) for piece in exported if is_run or piece.name != TRANSFORMER]
    uncached = _engine([each for each in results if each[0].name not in TRANSFORMER_PIECES]) if is_run else None
    return replace(_engine([each for each in results if each[0].name != TRANSFORMER]), uncached=uncached)


def _engine(results: Sequence[tuple[ExportedPiece, StageResult]]) -> CompiledEngine:
    facts = [json.loads((result.path / PIECE_FILE).read_text()) for _, result in results]
    return CompiledEngine(
        pieces={piece.name: Piece.model_validate(fact["piece"]) for (piece, _), fact in zip(results, facts, strict=True)},
        folders={piece.name: result.path / "files" for piece, result in results},
        reports=tuple(_report(piece, result) for piece, result in results),
        warnings=tuple(dict.fromkeys(warning for fact in facts for warning in fact["warnings"])),
        digest="".join(result.digest[:16] for _, result in results),
    )


def export_stage(context: BuildContext, choice: Choice, component: str) -> list[ExportedPiece]:
    """Export a component's graphs, and for the transformer also their composition."""
    recipe = context.quantized_components(choice.scored.candidate.recipe).get(component)
    emulate = recipe is not None and is_emulated(recipe.format, context.job.accelerator)
    precision = graph_precision(context)
    quantized = choice.scored.quantized.get(component)

    def work(folder: Path) -> None:
        with quiet_imports():
            from engine_builder.workflow.exporting import export_component  # noqa: PLC0415  # Its libraries take seconds.
        graphs = [graph for graph in candidate_simulation(context, choice.scored).graphs if graph.component == component]
        require_free_space(folder, weight_bytes(quantized) if quantized and not emulate else full_weight_bytes(graphs, precision))
        facts = export_component(context, graphs, folder, emulate=emulate, precision=precision)
        (folder / GRAPHS_FILE).write_text(json.dumps(facts, indent=2))

    inputs = (context.checkpoint.digest, component, quantized and quantized.digest, emulate, precision, context.arithmetic)
    result = context.runner.run("export", inputs, work, label=component)
    return [_exported(entry, result) for entry in json.loads((result.path / GRAPHS_FILE).read_text())]


def compile_stage(context: BuildContext, choice: Choice, piece: ExportedPiece) -> StageResult:
    """Compile one graph for the accelerator."""
    compiler = context.compiler
    profile = profile_of([plan.dims for plan in context.manifest.shapes], context.manifest.max_batch_size)

    def work(folder: Path) -> None:
        require_free_space(folder, round(piece.size_mib * MIB))  # A compiled piece is its weights, and little beside.
        files = folder / "files"
        files.mkdir()
        request = CompileRequest(piece.name, piece.onnx, piece.inputs, piece.outputs, profile, choice.recipe.precision)
        compiled = compiler.compile(request, files, context.runner.store.timing_cache)
        facts = {
            "piece": compiled.piece.to_wire(),
            "bytes": compiled.size_bytes,
            "seconds": compiled.seconds,
            "warnings": list(compiled.warnings),
        }
        (folder / PIECE_FILE).write_text(json.dumps(facts, indent=2))

    named = {dim for spec in (*piece.inputs, *piece.outputs) for dim in spec.dims}
    axes = {name: [axis.minimum, axis.optimum, axis.maximum] for name, axis in profile.axes.items() if name in named}
    inputs = (piece.digest, piece.name, compiler.version(), dict(compiler.settings()), axes, profile.batch.maximum)
    target = (context.job.accelerator, context.plan.instruction_set, choice.recipe.precision)
    return context.runner.run("compile", (*inputs, *target), work, label=piece.name)


def graph_precision(context: BuildContext) -> Precision:
    """Return the type of the exported layers: TensorRT takes the graph's, OpenVINO casts an FP32 graph when it loads it."""
    return Precision.FP32 if context.job.accelerator.is_cpu else Precision.BF16


def full_weight_bytes(graphs: Iterable[GraphModule], precision: Precision) -> int:
    """Return the bytes of graphs' weights where none is written in a narrower type than `precision`."""
    return sum(weight.numel() for graph in graphs for weight in graph.module.parameters()) * WIDTHS[precision]


def _exported(entry: Mapping[str, object], result: StageResult) -> ExportedPiece:
    fields = {name: entry[name] for name in ("name", "bytes", "relativeError", "paritySize", "inputs", "outputs")}
    return ExportedPiece(
        name=str(fields["name"]),
        onnx=result.path / f"{fields['name']}.onnx",
        inputs=_specs(fields["inputs"]),
        outputs=_specs(fields["outputs"]),
        size_mib=float(str(fields["bytes"])) / MIB,
        relative_error=None if fields["relativeError"] is None else float(str(fields["relativeError"])),
        parity_size=str(fields["paritySize"]),
        digest=result.digest,
    )


def _specs(entries: object) -> tuple[TensorSpec, ...]:
    assert isinstance(entries, list)
    return tuple(TensorSpec.model_validate(entry) for entry in entries)


def _report(piece: ExportedPiece, result: StageResult) -> PieceReport:
    facts = json.loads((result.path / PIECE_FILE).read_text())
    return PieceReport(
        name=piece.name,
        relative_error=piece.relative_error,
        parity_size=piece.parity_size,
        onnx_mib=piece.size_mib,
        compiled_mib=facts["bytes"] / MIB,
        compile_seconds=facts["seconds"],
    )
