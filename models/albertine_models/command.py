"""The command line: parses, dispatches, and turns expected errors into one line and exit code 1."""

import argparse
import sys
from pathlib import Path

from albertine_models import __version__
from albertine_models.errors import ConversionError
from albertine_models.network import SITES
from albertine_models.quantisation import FLOAT_SITES, RANGE_METHODS
from albertine_models.terminal import Terminal

CONVERT_EXAMPLES = """\
examples:
  a local folder, its labels as the checkpoint names them:
    albertine-models convert ./my-albert --output models/my-albert --task sentiment --languages en

  a repository of the hub, labels named here, int8 judged on texts with true labels:
    albertine-models convert someone/albert-sst2 --output models/sst2 \\
        --labels negative,positive --evaluation dev.jsonl

  a model that reads pairs; long second texts are cut into windows:
    albertine-models convert ./nli --output models/nli --pair --windowed text_pair

  int8 was refused and the table named a remedy:
    albertine-models convert ./my-albert --output models/my-albert --keep-float ffn_output

files of texts are JSON lines (gzip where the name ends in .gz) of `text`, `text_pair` for pair models, and
optionally `label`. `--evaluation` texts become part of the folder, in verification.jsonl; `--private-evaluation` texts do not."""

TOKENS_EXAMPLES = """\
example:
    albertine-models tokens models/my-albert reviews.jsonl --output ids.jsonl
    albertine model verify my-albert --corpus ids.jsonl"""

SPEED_EXAMPLES = """\
example:
    albertine-models speed ./my-albert --rounds 15"""

BEHAVIOUR_EXAMPLES = """\
example:
    albertine-models behaviour --output behaviour.jsonl
    albertine model evaluate albert-sentiment behaviour.jsonl --by kind"""


def names(text: str) -> list[str]:
    """A list given with commas."""
    return [name.strip() for name in text.split(",")]


def count(text: str) -> int:
    """A number from 1 on."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is no number from 1 on")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """All commands."""
    top = argparse.ArgumentParser(prog="albertine-models", description="Brings ALBERT checkpoints to albertine.")
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    add_convert(commands)
    add_tokens(commands)
    add_speed(commands)
    add_behaviour(commands)
    return top


def command(commands, name: str, run, texts: tuple[str, str]):
    """A subcommand with its help and examples."""
    summary, examples = texts
    added = commands.add_parser(
        name, help=summary, description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    added.set_defaults(run=run)
    return added


def add_convert(commands):
    """`convert`."""
    summary = "turn a Hugging Face ALBERT for sequence classification into a verified model folder"
    added = command(commands, "convert", run_convert, (summary, CONVERT_EXAMPLES))
    added.add_argument("checkpoint", help="folder of a checkpoint, or the name of a repository on the hub")
    added.add_argument("--output", type=Path, required=True, help="model folder to write")
    added.add_argument("--revision", help="branch, tag or commit of a repository on the hub")
    added.add_argument("--force", action="store_true", help="replace the model folder that stands at --output")
    added.add_argument("--threads", type=count, default=1, help="more help on an idle machine only (default: 1)")
    add_naming(added.add_argument_group("what the model is called"))
    add_reading(added.add_argument_group("what the model reads"))
    add_quantisation(added.add_argument_group("precision"))


def add_naming(group):
    """Names, labels and terms."""
    group.add_argument("--name", help="default: the checkpoint's name")
    group.add_argument("--version", default="1", help="raise it whenever weights change (default: 1)")
    group.add_argument(
        "--task", help="what it decides, such as sentiment (default: the checkpoint's, or classification)"
    )
    group.add_argument(
        "--labels", type=names, metavar="A,B,C", help="in the order of the outputs; default: the checkpoint's"
    )
    group.add_argument("--languages", type=names, default=[], metavar="en,de", help="ISO 639-1; default: any language")
    group.add_argument("--license", default="unknown", help="SPDX expression of the weights' terms")
    group.add_argument("--description", help="one sentence without a full stop")
    group.add_argument("--notes", type=Path, metavar="FILE.md", help="put at the end of the card as it is")


def add_reading(group):
    """Texts and windows."""
    kind = group.add_mutually_exclusive_group()
    kind.add_argument("--pair", action="store_true", help="the model reads two texts, `text` and `text_pair`")
    kind.add_argument("--single", dest="pair", action="store_false", help="the model reads one text (default)")
    group.add_argument(
        "--windowed",
        choices=["text", "text_pair"],
        default="text",
        help="which text of a pair is cut into windows; the other stands whole in each (default: text)",
    )
    group.add_argument("--max-length", type=int, metavar="TOKENS", help="of one window; default: 512 or the positions")
    group.add_argument("--window-overlap", type=int, metavar="TOKENS", help="shared by neighbours (default: 64)")
    group.add_argument("--temperature", type=float, default=1.0, help="divides the logits (default: 1)")


def add_quantisation(group):
    """int8 and its remedies."""
    group.add_argument("--precision", choices=["int8", "float32"], default="int8", help="default: int8")
    group.add_argument("--calibration", type=Path, metavar="FILE", help="texts that fix activation scales")
    group.add_argument(
        "--evaluation", type=Path, action="append", default=[], metavar="FILE", help="texts that judge int8; repeatable"
    )
    group.add_argument(
        "--private-evaluation",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="the same, but the texts do not become part of the folder; repeatable",
    )
    group.add_argument(
        "--activation-range", choices=RANGE_METHODS, default="mse", help="how scales are chosen (default: mse)"
    )
    for option, choices, text in (
        ("--keep-float", FLOAT_SITES, "a product, or the word table, that stays in float32; repeatable"),
        ("--dynamic", SITES, "a product whose activation scale follows the batch; repeatable"),
    ):
        group.add_argument(
            option, choices=choices, action="append", default=[], metavar="SITE", help=f"{text}: {', '.join(choices)}"
        )
    group.add_argument(
        "--no-unrolled", dest="unrolled", action="store_false", help="leave out unrolled.onnx, which only verifies"
    )


def add_tokens(commands):
    """`tokens`."""
    summary = "write texts with their token ids, for `albertine model verify --corpus`"
    added = command(commands, "tokens", run_tokens, (summary, TOKENS_EXAMPLES))
    added.add_argument("model", help="model folder, or folder or hub name of a checkpoint (then transformers' own ids)")
    added.add_argument("texts", type=Path, help="JSON lines with `text`, for pair models also `text_pair`")
    added.add_argument("--output", type=Path, required=True, help="file to write")
    added.add_argument("--pair", action="store_true", help="encode `text` and `text_pair` together")
    added.add_argument("--limit", type=count, metavar="N", help="only the first N texts")


def add_speed(commands):
    """`speed`."""
    summary = "time one core: exports of the usual tools, this package's graphs, and the core's int8 peak"
    added = command(commands, "speed", run_speed, (summary, SPEED_EXAMPLES))
    added.add_argument("checkpoint", help="folder of a checkpoint, or the name of a repository on the hub")
    added.add_argument(
        "--rounds", type=count, default=11, help="interleaved runs of which the median counts (default: 11)"
    )
    added.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def add_behaviour(commands):
    """`behaviour`."""
    summary = "write the behavioural tests of sentiment, for `albertine model evaluate --by kind`"
    added = command(commands, "behaviour", run_behaviour, (summary, BEHAVIOUR_EXAMPLES))
    added.add_argument("--output", type=Path, required=True, help="file to write")


def run_convert(options: dict, terminal: Terminal):
    """Loads what converting needs, which takes seconds, only when it is asked for."""
    from albertine_models.convert import convert
    from albertine_models.settings import Options

    convert(Options(**options), terminal)


def run_tokens(options: dict, terminal: Terminal):
    """Writes token ids."""
    from albertine_models.tokens import write_tokens

    write_tokens(options, terminal)


def run_speed(options: dict, terminal: Terminal):
    """Prints the table of speeds."""
    from albertine_models.speed import print_speed

    print_speed(options, terminal)


def run_behaviour(options: dict, terminal: Terminal):
    """Writes the behavioural tests."""
    from albertine_models.texts.behaviour import write_cases

    write_cases(options["output"], terminal)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = vars(parser().parse_args(arguments))
    run = options.pop("run")
    terminal = Terminal()
    try:
        run(options, terminal)
    except ConversionError as error:
        terminal.fail(str(error))
        return 1
    except KeyboardInterrupt:
        terminal.fail("interrupted; nothing was written")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
