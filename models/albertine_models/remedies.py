"""What each remedy would give where int8 was refused: every site in float32 or with a scale that follows the batch,
and the other ways to choose ranges. Measured on a part of the same rows, and printed with the option that asks for it.
"""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from albertine_models import acceptance, graphs, runtime
from albertine_models.network import SITES
from albertine_models.quantisation import FLOAT_SITES, RANGE_METHODS, Plan
from albertine_models.runtime import Measurement

if TYPE_CHECKING:
    from albertine_models.convert import Conversion

# Rows that remedies are measured on: a dozen of them are, and half a per cent is still five rows.
REMEDY_TEXTS = 1000


def candidates(conversion: "Conversion", plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Option of the command -> the plan it would give."""
    for site in FLOAT_SITES:
        if site not in plan.keep_float:
            yield f"--keep-float {site}", dataclasses.replace(plan, keep_float=plan.keep_float | {site})
    for site in SITES:
        if site not in plan.keep_float | plan.dynamic:
            yield f"--dynamic {site}", dataclasses.replace(plan, dynamic=plan.dynamic | {site})
    if conversion.observations is not None:
        for method in RANGE_METHODS:
            if method != conversion.options.activation_range:
                roundings = conversion.observations.roundings(method, conversion.checkpoint.network.weight_of)
                yield f"--activation-range {method}", dataclasses.replace(plan, roundings=roundings)


def print_table(conversion: "Conversion", plan: Plan):
    """Measures every remedy and prints it with what it gives."""
    usual = conversion.corpus.sets(conversion.input.max_length)
    indices = usual.get("the evaluation texts") or usual["all verification texts"]
    indices = indices[:: max(1, len(indices) // REMEDY_TEXTS)][:REMEDY_TEXTS]
    chosen = [conversion.corpus.rows[index] for index in indices]
    network = conversion.checkpoint.network
    conversion.terminal.say(f"what each remedy would give, measured on {len(chosen):,} texts:")
    for option, remedy in candidates(conversion, plan):
        parts = graphs.folder_graphs(network, remedy, with_unrolled=False)
        measurement = Measurement(conversion.terminal, conversion.input.max_length, alone=remedy.follows_batch)
        measured = measurement.logits(runtime.served(parts, len(network.order)), chosen, f"trying {option}")
        figures = acceptance.compare(chosen, conversion.description.labels, conversion.reference[indices], measured)
        mark = conversion.terminal.done if figures.accepted else conversion.terminal.say
        mark(f"   {option:32} {figures.describe()}")
