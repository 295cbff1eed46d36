"""The card of a folder: what is known of the model and what was measured, for people."""

from dataclasses import dataclass
from pathlib import Path

from albertine_models.acceptance import AGREEMENT_MIN, FLOAT_TOLERANCE, MACRO_F1_LOSS_MAX
from albertine_models.corpus import Corpus
from albertine_models.errors import ConversionError
from albertine_models.manifest import Manifest, graphs_table
from albertine_models.quantisation import Plan


@dataclass(frozen=True)
class Measured:
    """What the manifest does not hold: how it was quantised, the corpus, and the files' sizes in bytes."""

    plan: Plan
    corpus: Corpus
    sizes: dict[str, int]


def readme(manifest: Manifest, measured: Measured, notes: str) -> str:
    """The whole card; `notes` is Markdown of the model's maker, put at the end as it is."""
    said = manifest.description
    sections = [
        f"# {said.name}, version {said.version}",
        f"{said.description}. Labels: {', '.join(f'`{label}`' for label in said.labels)}.",
        about(manifest, measured),
        "## Equality with the checkpoint",
        equality(manifest, measured),
    ]
    if manifest.files.precision == "int8":
        sections += ["## int8", quantisation(manifest, measured.plan)]
    if notes.strip():
        sections.append(notes.strip())
    return "\n\n".join(sections) + "\n"


def read_notes(path: Path) -> str:
    """Markdown of the model's maker."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise ConversionError(f"cannot read the card's notes from `{path}`: {cause}") from cause


def about(manifest: Manifest, measured: Measured) -> str:
    """Facts in a table."""
    said, shape = manifest.description, manifest.input
    reads = f"a pair, of which `{shape.windowed}` is cut into windows" if shape.pair else "one text"
    passes, graphs = manifest.architecture.passes, graphs_table(manifest.files)
    if graphs["kind"] == "unrolled":
        kind, depth = "unrolled: one graph", f"{passes} layers"
    else:
        kind = "stepped: the layers are applied in turn, again and again"
        depth = f"{passes} passes, distinct layers: {len(graphs['layers'])}"
    sizes = ", ".join(f"`{name}` {size / 1e6:.2f} MB" for name, size in measured.sizes.items())
    facts = {
        "converted from": f"`{said.source}`",
        "licence": said.license,
        "languages": ", ".join(said.languages) or "not limited",
        "reads": f"{reads}; windows of {shape.max_length} tokens, {shape.window_overlap} shared",
        "network": f"ALBERT, hidden size {manifest.architecture.hidden_size}, {depth}",
        "graphs": f"{kind}; {manifest.files.precision}",
        "files": sizes,
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items())])


def equality(manifest: Manifest, measured: Measured) -> str:
    """How the float32 graphs and the tokenizer compare with transformers."""
    rows = len(measured.corpus.rows)
    text = (
        f"Measured on {rows:,} texts ({measured.corpus.given:,} of them given for the evaluation). `tokenizer.json` "
        "gives the ids of transformers' own tokenizer for each of them."
    )
    if (distance := manifest.accuracy.get("float32_distance_max")) is not None:
        text += (
            f" The float32 graphs differ from transformers' logits by at most {distance:.1e} (relative above one); "
            f"{FLOAT_TOLERANCE:.0e} is allowed."
        )
    return text


def quantisation(manifest: Manifest, plan: Plan) -> str:
    """What is 8 bits wide, and what it cost."""
    accuracy = manifest.accuracy
    others = "stored in float16 and computed in float32" if plan.quantises_layer else "float32"
    text = (
        "Weights are 7 bits wide (reduced range) with a scale a column, so that integer products are exact on cores "
        "with and without VNNI; the word table is 8 bits with a scale a row; positions, the embedding's projection and the "
        f"pooler are {others}."
    )
    if plan.keep_float:
        text += f" In float32 by choice: {names(plan.keep_float)}."
    if plan.follows_batch:
        text += f" Activation scales follow the batch at {names(plan.dynamic)}, elsewhere they are constants."
    else:
        text += " Activation scales are constants, so a text's logits do not depend on what it is grouped with."
    lines = [
        "| against float32 | |",
        "|---|---|",
        f"| equal labels (at least {AGREEMENT_MIN:.0%}) | {accuracy['int8_label_agreement']:.2%} |",
    ]
    if "int8_macro_f1" in accuracy:
        before, after = accuracy["float32_macro_f1"], accuracy["int8_macro_f1"]
        lines.append(f"| macro-F1, float32 / int8 (may fall by {MACRO_F1_LOSS_MAX}) | {before:.4f} / {after:.4f} |")
    lines += [
        f"| distance of logits, largest | {accuracy['int8_logit_distance_max']:.3f} |",
        f"| a text alone and in a padded group of eight, largest distance | {accuracy['grouping_distance_max']:.1e} |",
    ]
    return text + "\n\n" + "\n".join(lines) + "\n\nMeasured on one kind of core."


def names(sites: frozenset[str]) -> str:
    """Sites in a sentence."""
    return ", ".join(f"`{site}`" for site in sorted(sites))
