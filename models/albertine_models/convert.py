"""From a checkpoint to a verified model folder: the one way to make a folder, for the command and for recipes.

Nothing is written at the folder's place before the float32 graphs equal transformers and, where int8 was asked for,
the int8 graphs were accepted.
"""

from dataclasses import dataclass, field

import numpy
import transformers

from albertine_models import acceptance, card, corpus, folder, graphs, remedies, rows, runtime, settings, tokenizer
from albertine_models.acceptance import Figures
from albertine_models.calibration import Observations, observe
from albertine_models.checkpoint import Checkpoint, open_checkpoint
from albertine_models.errors import ConversionError
from albertine_models.manifest import Architecture, Description, Files, Input, Manifest
from albertine_models.quantisation import Plan, float_plan
from albertine_models.runtime import Measurement
from albertine_models.settings import Options
from albertine_models.terminal import Terminal

# Rows that the unrolled graph is run on: its nodes are those of the three graphs.
UNROLLED_TEXTS = 100


@dataclass
class Conversion:
    """Everything known before graphs are chosen: the checkpoint, its texts, and transformers' answers."""

    options: Options
    terminal: Terminal
    checkpoint: Checkpoint
    tokenizer: object
    description: Description
    input: Input
    corpus: corpus.Corpus
    reference: numpy.ndarray
    # Measured on the way, for the manifest and the card.
    facts: dict[str, float] = field(default_factory=dict)
    # What calibration saw; None where roundings were given.
    observations: Observations | None = None

    def measure(self, parts: dict[str, bytes], plan: Plan, title: str) -> numpy.ndarray:
        """Logits of the served graphs for every row of the corpus."""
        measurement = Measurement(self.terminal, self.input.max_length, alone=plan.follows_batch)
        run = runtime.served(parts, len(self.checkpoint.network.order))
        return measurement.logits(run, self.corpus.rows, title)

    def figures(self, measured: numpy.ndarray) -> dict[str, Figures]:
        """int8 beside float32 on every set that counts: set name -> figures."""
        return {
            name: acceptance.compare(
                [self.corpus.rows[index] for index in indices],
                self.description.labels,
                self.reference[indices],
                measured[indices],
            )
            for name, indices in self.corpus.sets(self.input.max_length).items()
        }


def convert(options: Options, terminal: Terminal) -> Plan:
    """Converts, verifies and writes; returns what was quantised, and how. Raises ConversionError."""
    transformers.utils.logging.disable_progress_bar()
    runtime.use_threads(options.threads)
    folder.check_place(options.output, options.force)
    conversion = prepare(options, terminal)
    network = conversion.checkpoint.network
    exact = verify_float(conversion)
    if options.precision == "float32":
        plan, parts = float_plan(), exact
    else:
        plan = quantisation_plan(conversion)
        parts = graphs.folder_graphs(network, plan, options.unrolled)
        verify_int8(conversion, plan, parts)
    conversion.facts["grouping_distance_max"] = runtime.grouping_distance(
        runtime.served(parts, len(network.order)), conversion.corpus.rows[:64], conversion.input.max_length
    )
    write(conversion, plan, parts)
    terminal.done(f"wrote {options.output}")
    return plan


def prepare(options: Options, terminal: Terminal) -> Conversion:
    """Loads the checkpoint, resolves the options, encodes the corpus and asks transformers for its logits."""
    checkpoint = open_checkpoint(options.checkpoint, options.revision)
    description = settings.describe(options, checkpoint)
    shape = settings.input_of(options, checkpoint)
    own, reference_tokenizer = tokenizer.load_tokenizer(checkpoint)
    terminal.done(f"read {checkpoint.source}: {summary(checkpoint)}")
    found = corpus.build(options, description.labels, own)
    tokenizer.check_parity(found.rows, reference_tokenizer)
    terminal.done(f"tokenizer equals transformers' on {len(found.rows):,} texts")
    measurement = Measurement(terminal, shape.max_length)
    logits = measurement.logits(lambda ids, types, _: checkpoint.logits(ids, types), found.rows, "asking transformers")
    return Conversion(options, terminal, checkpoint, own, description, shape, found, logits)


def summary(checkpoint: Checkpoint) -> str:
    """The checkpoint's shape in a few words."""
    network = checkpoint.network
    kind = "stepped" if network.splittable else "unrolled"
    return (
        f"{len(network.order)} passes, {len(network.layers)} distinct layers of hidden size {network.hidden_size}, "
        f"vocabulary {len(network.embedding.word):,}, {network.labels} labels; {kind}"
    )


def verify_float(conversion: Conversion) -> dict[str, bytes]:
    """float32 graphs, which must compute what transformers computes: served, and in one graph."""
    checkpoint = conversion.checkpoint
    exact = graphs.folder_graphs(checkpoint.network, float_plan(), conversion.options.unrolled)
    measured = conversion.measure(exact, float_plan(), "checking the float32 graphs")
    distance = acceptance.check_float(conversion.reference, measured)
    conversion.facts["float32_distance_max"] = distance
    conversion.terminal.done(
        f"float32 graphs equal transformers: largest relative distance {distance:.1e}, "
        f"at most {acceptance.FLOAT_TOLERANCE:.0e} is allowed"
    )
    verify_unrolled(conversion, exact, float_plan(), measured)
    return exact


def verify_unrolled(conversion: Conversion, parts: dict[str, bytes], plan: Plan, served: numpy.ndarray):
    """The one graph must compute what the three compute; a hundred rows show it."""
    if "unrolled.onnx" not in parts:
        return
    step = max(1, len(conversion.corpus.rows) // UNROLLED_TEXTS)
    measurement = Measurement(conversion.terminal, conversion.input.max_length, alone=plan.follows_batch)
    run = runtime.Unrolled(parts["unrolled.onnx"])
    found = measurement.logits(run, conversion.corpus.rows[::step], "checking the unrolled graph")
    acceptance.check_unrolled(served[::step], found)


def quantisation_plan(conversion: Conversion) -> Plan:
    """Activation ranges and the sites that differ, as the options want them."""
    options = conversion.options
    if options.roundings is not None:
        roundings = options.roundings
    else:
        conversion.observations = observations_of(conversion)
        network = conversion.checkpoint.network
        roundings = conversion.observations.roundings(options.activation_range, network.weight_of)
    return Plan(roundings, frozenset(options.keep_float), frozenset(options.dynamic))


def observations_of(conversion: Conversion) -> Observations:
    """What the products read on the calibration texts given, or on ordinary ones of the package."""
    options = conversion.options
    if options.calibration is not None:
        found = tokenizer.encode(conversion.tokenizer, rows.read_rows(options.calibration, conversion.input.pair))
    else:
        found = corpus.calibration_rows(conversion.input.pair, conversion.tokenizer)
    return observe(conversion.checkpoint, found, Measurement(conversion.terminal, conversion.input.max_length))


def verify_int8(conversion: Conversion, plan: Plan, parts: dict[str, bytes]):
    """Accepts int8 graphs, or measures what would help and refuses."""
    measured = conversion.measure(parts, plan, "checking the int8 graphs")
    found = conversion.figures(measured)
    for name, figures in found.items():
        mark = conversion.terminal.done if figures.accepted else conversion.terminal.warn
        mark(f"int8 on {name}: {figures.describe()}")
    if not all(figures.accepted for figures in found.values()):
        remedies.print_table(conversion, plan)
        lost = "; ".join(f"{name}: {figures.describe()}" for name, figures in found.items() if not figures.accepted)
        raise ConversionError(
            f"int8 is refused, at least {acceptance.AGREEMENT_MIN:.0%} of the labels must stay and macro-F1 may fall "
            f"by {acceptance.MACRO_F1_LOSS_MAX}: {lost}; use an option of the table above, or `--precision float32`"
        )
    verify_unrolled(conversion, parts, plan, measured)
    named = found.get("the evaluation texts") or found["all verification texts"]
    conversion.facts["int8_label_agreement"] = named.agreement
    conversion.facts["int8_logit_distance_max"] = named.distance_max
    if named.labelled:
        conversion.facts["float32_macro_f1"] = named.reference_f1
        conversion.facts["int8_macro_f1"] = named.f1
    conversion.terminal.say(
        "   7-bit weights make every integer product exact on cores with and without VNNI; measured on this core only"
    )


def write(conversion: Conversion, plan: Plan, parts: dict[str, bytes]):
    """Every file of the folder; it appears at its place when all are there."""
    options, network = conversion.options, conversion.checkpoint.network
    notes = card.read_notes(options.notes) if options.notes else ""
    if options.report is not None:
        figures, notes = options.report(parts)
        conversion.facts.update(figures)
    with folder.building(options.output) as place:
        for name, graph in parts.items():
            (place / name).write_bytes(graph)
        conversion.tokenizer.save(str(place / "tokenizer.json"), pretty=False)
        left_out = corpus.write(place / "verification.jsonl", conversion.corpus, conversion.reference, conversion.input)
        if left_out:
            conversion.terminal.warn(f"{left_out:,} evaluation texts left out of `verification.jsonl`, which is full")
        names = [*parts, "tokenizer.json", "verification.jsonl"]
        manifest = Manifest(
            description=conversion.description,
            architecture=Architecture(network.hidden_size, len(network.order), len(network.embedding.word)),
            input=conversion.input,
            files=Files(options.precision, {name: folder.sha256(place / name) for name in names}),
            accuracy=conversion.facts,
            temperature=options.temperature,
        )
        (place / "model.toml").write_text(manifest.text(), encoding="utf-8")
        sizes = {name: (place / name).stat().st_size for name in names}
        text = card.readme(manifest, card.Measured(plan, conversion.corpus, sizes), notes)
        (place / "README.md").write_text(text, encoding="utf-8")
