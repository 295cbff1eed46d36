"""Compares albertine with its peers: the same broker, database, corpus and model, one system at a time.

All systems are measured from outside, and alike:

1. The system starts on an empty topic. It is ready when its consumer group is stable and holds all partitions.
2. Warm-up documents are sent; when all of them are rows in the database, everything is loaded and has run once.
3. The clock starts, the corpus is sent at once, and the clock ends when the last row is seen. Rows are counted every
   50 ms, on another connection.

So no start-up counts, and nothing that a system computes before its first row is left out. Rounds are interleaved, each
with another system first, so that a busy moment of the machine hits each of them.
"""

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psycopg
from confluent_kafka import ConsumerGroupState, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from psycopg import sql
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent

PARTITIONS = 4
POLL_SECONDS = 0.05
# How long loading a model, and a run that makes no progress, may take.
READY_SECONDS = 180
STALL_SECONDS = 120
# Broker and database take a few hundredths of the cores beside a system; where more than this went elsewhere, something
# ran that should not have, and the figure is no measure.
ELSEWHERE_MAX = 0.15
# Of a second, in which the kernel counts.
TICKS = os.sysconf("SC_CLK_TCK")
# Below this share of equal labels two systems did not do the same work.
AGREEMENT_MIN = 0.97

# As the model's folder says, and with all passes for every text, which is what peers compute.
ALBERTINE = "albertine"
FULL_DEPTH = "albertine_full_depth"
PLAIN = "transformers_pipeline"
INT8 = "onnxruntime_int8"


@dataclass(frozen=True)
class Peer:
    """A way to run a peer."""

    name: str
    title: str
    script: str
    arguments: tuple[str, ...] = ()
    processes: int = 1
    # Whether it is given `--documents-slow` documents only.
    slow: bool = False


# A process a core, as far as there are partitions for them.
PROCESSES = min(len(os.sched_getaffinity(0)), PARTITIONS)
EACH_CORE = ("--processes", str(PROCESSES))

# From the plain form to the best that was found: what an engineer would reach step by step. The last step is also what
# the streaming framework is given.
SORTED = (*EACH_CORE, "--sort-by-length", "--window", "256", "--batch", "8")
ALONE = (*EACH_CORE, "--window", "256", "--batch", "1")
PEERS = [
    Peer(PLAIN, "transformers pipeline, float32", "transformers_pipeline.py", slow=True),
    Peer(INT8, "ONNX Runtime int8, batches of 32", "onnxruntime_int8.py"),
    Peer(
        "onnxruntime_int8_processes",
        "ONNX Runtime int8, batches of 32, a process a core",
        "onnxruntime_int8.py",
        EACH_CORE,
        PROCESSES,
    ),
    Peer(
        "onnxruntime_int8_sorted",
        "ONNX Runtime int8, sorted by length, batches of 8, a process a core",
        "onnxruntime_int8.py",
        SORTED,
        PROCESSES,
    ),
    Peer(
        "onnxruntime_int8_alone",
        "ONNX Runtime int8, one text a call, a process a core",
        "onnxruntime_int8.py",
        ALONE,
        PROCESSES,
    ),
    Peer("quix_streams", "Quix Streams with the same, an instance a core", "quix_streams.py", ALONE, PROCESSES),
]


@dataclass(frozen=True)
class Document:
    """A line of the corpus."""

    document_id: str
    text: str
    tokens: int


@dataclass
class Run:
    """One system in one round."""

    system: str
    round: int
    documents: int
    mean_tokens: float
    seconds: float
    # Time that its processes were on a core.
    core_seconds: float
    # Share of the cores that everything else took meanwhile: broker, database, and whatever should not have run.
    elsewhere: float
    # What the system says of itself.
    own: dict = field(default_factory=dict)

    @property
    def speed(self) -> float:
        """Documents a second."""
        return self.documents / self.seconds


class Servers:
    """Broker and database, in a schema of this comparison that is dropped in the end."""

    def __init__(self):
        self.brokers = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
        self.admin = AdminClient({"bootstrap.servers": self.brokers})
        self.schema = f"peers_{uuid.uuid4().hex[:12]}"
        self.database = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
        self.database.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(self.schema)))
        # A count that hangs must not hide a failure.
        self.database.execute("SET statement_timeout TO '10s'")

    @contextmanager
    def cleaned(self) -> Iterator[None]:
        """The schema exists inside; albertine's own `database migrate` makes it."""
        try:
            yield
        finally:
            self.database.execute("SET statement_timeout TO '60s'")
            self.database.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(self.schema)))

    @contextmanager
    def topic(self, group: str) -> Iterator[str]:
        """A new topic, which is deleted in the end, with the group that read it."""
        name = f"{self.schema}.{group}"
        self.admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result()
        try:
            yield name
        finally:
            self.admin.delete_topics([name])[name].result()
            try:
                self.admin.delete_consumer_groups([name])[name].result()
            except KafkaException as error:
                # One that was killed is empty after its session timed out, and the broker forgets it later.
                print(f"consumer group {name} is left behind: {error.args[0].str()}", file=sys.stderr)

    def send(self, topic: str, documents: Sequence[Document]):
        """Sends documents, keyed by id, to the partitions in turn.

        Chosen by the key's hash, partitions would differ in size by chance, which only peers with several processes
        would suffer from.
        """
        producer = Producer(
            {
                "bootstrap.servers": self.brokers,
                "compression.type": "lz4",
                "queue.buffering.max.messages": len(documents) + 1,
            }
        )
        for number, document in enumerate(documents):
            value = json.dumps({"id": document.document_id, "text": document.text}, ensure_ascii=False)
            producer.produce(topic, value, document.document_id, partition=number % PARTITIONS)
        if producer.flush(60):
            raise SystemExit("the broker did not take the corpus within a minute")

    def group_ready(self, group: str, members: int) -> bool:
        """Whether a group has all its members, and they all partitions."""
        try:
            found = self.admin.describe_consumer_groups([group])[group].result()
        except KafkaException:
            # Not there yet.
            return False
        partitions = sum(len(member.assignment.topic_partitions) for member in found.members)
        stable = found.state == ConsumerGroupState.STABLE
        return stable and len(found.members) >= members and partitions == PARTITIONS


class System:
    """A running process of a system under comparison."""

    def __init__(self, name: str, topic: str, servers: Servers, command: Sequence[str], log: Path):
        self.name, self.topic, self.servers, self.log = name, topic, servers, log
        self.output = log.open("w+b")
        environment = os.environ | {
            "PGOPTIONS": f"-c search_path={servers.schema}",
            # Models lie in folders; nothing is to be asked for over the network.
            "HF_HUB_OFFLINE": "1",
        }
        # A group of its own, so that a peer's processes can be ended with it.
        self.process = subprocess.Popen(
            command, stdout=self.output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )

    def count(self) -> int:
        """Rows stored so far."""
        raise NotImplementedError

    def labels(self) -> dict[str, str]:
        """Document -> label."""
        raise NotImplementedError

    def core_seconds(self) -> float:
        """Time that its processes have been on a core."""
        return session_core_seconds(self.process.pid)

    def check_alive(self, rows: int, wanted: int):
        """Ends the comparison when the process ended too early."""
        if rows < wanted and self.process.poll() is not None:
            raise SystemExit(f"{self.name} ended after {rows} of {wanted} rows; the end of {self.log}:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def await_ready(self, members: int):
        """Waits until the group is complete."""
        deadline = time.monotonic() + READY_SECONDS
        while not self.servers.group_ready(self.topic, members):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.name} did not start; the end of {self.log}:\n{self.tail()}")
            time.sleep(0.2)

    def await_rows(self, wanted: int):
        """Waits until so many rows are there."""
        rows, moved = 0, time.monotonic()
        while rows < wanted:
            time.sleep(POLL_SECONDS)
            found, now = self.count(), time.monotonic()
            rows, moved = found, now if found > rows else moved
            self.check_alive(rows, wanted)
            if now - moved > STALL_SECONDS:
                raise SystemExit(f"{self.name} stands still at {rows} of {wanted} rows; see {self.log}:\n{self.tail()}")

    def end(self) -> dict:
        """Waits for the process, ends it if it does not end itself, and gives what it said of itself."""
        self.ask_to_end()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.process.returncode:
            raise SystemExit(f"{self.name} failed at its end; the end of {self.log}:\n{self.tail()}")
        last = self.log.read_text(errors="replace").strip().rsplit("\n", 1)[-1]
        try:
            own = json.loads(last)
        except ValueError:
            return {}
        return own if "peer" in own else {}

    def ask_to_end(self):
        """A peer ends by itself."""

    def kill(self):
        """At once, with all its processes; nothing if it has ended."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.output.close()


class Albertine(System):
    """`albertine run` with a configuration of its own."""

    CONFIGURATION = """
[kafka]
bootstrap_servers = {brokers}
[postgres]
url = "postgres://localhost/replaced-by-DATABASE_URL"
schema = {schema}
[engine]
sessions = {sessions}
# Warm-up documents are of the corpus: what was said of them must not count.
duplicate_cache_bytes = 0
[models.{model}]
path = {path}
early_exit = {early_exit}
[streams.{stream}]
topic = {topic}
group = {topic}
models = [{model}]
start = "earliest"
# Peers store and publish nothing.
live.enabled = false
[streams.{stream}.fields]
id = "/id"
text = "/text"
"""

    def __init__(self, name: str, topic: str, stream: str, servers: Servers, options: argparse.Namespace, log: Path):
        self.stream = stream
        values = {
            "brokers": servers.brokers,
            "schema": servers.schema,
            "model": options.model.name,
            "path": str(options.model),
            "stream": stream,
            "topic": topic,
        }
        # JSON's strings are TOML's.
        quoted = {name: json.dumps(value) for name, value in values.items()}
        configuration = log.with_suffix(".toml")
        early_exit = "true" if name == ALBERTINE else "false"
        configuration.write_text(self.CONFIGURATION.format(sessions=cores(), early_exit=early_exit, **quoted))
        command = [str(options.albertine), "--config", str(configuration)]
        subprocess.run([*command, "database", "migrate"], check=True, stdout=subprocess.DEVNULL)
        super().__init__(name, topic, servers, [*command, "run"], log)

    def count(self) -> int:
        """Rows of its stream."""
        found = self.servers.database.execute("SELECT count(*) FROM labels WHERE stream = %s", [self.stream])
        return found.fetchone()[0]

    def labels(self) -> dict[str, str]:
        """What people query."""
        found = self.servers.database.execute(
            "SELECT document_id, label FROM current_labels WHERE stream = %s", [self.stream]
        )
        return dict(found.fetchall())

    def ask_to_end(self):
        """It runs for ever."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)


class PeerSystem(System):
    """A peer, on a table of its own that is new in each round."""

    def __init__(self, peer: Peer, topic: str, documents: int, servers: Servers, options, log: Path):
        self.table = sql.Identifier(f"peer_{peer.name}")
        servers.database.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(self.table))
        command = [sys.executable, str(HERE / peer.script), *peer.arguments]
        command += ["--topic", topic, "--group", topic, "--name", peer.name]
        command += ["--checkpoint", str(options.checkpoint)]
        command += ["--documents", str(documents), "--warm-up", str(options.warm_up)]
        super().__init__(peer.name, topic, servers, command, log)

    def count(self) -> int:
        """Rows of its table."""
        return self.servers.database.execute(sql.SQL("SELECT count(*) FROM {}").format(self.table)).fetchone()[0]

    def labels(self) -> dict[str, str]:
        """Rows of its table."""
        found = self.servers.database.execute(sql.SQL("SELECT document_id, label FROM {}").format(self.table))
        return dict(found.fetchall())


class Comparison:
    """All rounds, and what came of them."""

    def __init__(self, options: argparse.Namespace, corpus: list[Document], folder: Path):
        self.options, self.corpus, self.folder = options, corpus, folder
        self.servers = Servers()
        self.peers = [peer for peer in PEERS if peer.name in options.peers]
        self.runs: list[Run] = []
        # Of the last round; labels of one system differ from round to round in nothing that matters here.
        self.labels: dict[str, dict[str, str]] = {}

    def measure(self):
        """All systems in all rounds."""
        systems = [ALBERTINE, FULL_DEPTH, *self.peers]
        with self.servers.cleaned():
            for number in range(self.options.rounds):
                first = number % len(systems)
                for system in systems[first:] + systems[:first]:
                    run = self.run(system, number)
                    self.runs.append(run)
                    print(
                        f"round {number + 1}: {run.system}: {run.documents} documents in {run.seconds:.1f} s, "
                        f"{run.speed:.1f} a second; {run.elsewhere:.0%} of the cores went elsewhere",
                        file=sys.stderr,
                    )

    def run(self, system: Peer | str, number: int) -> Run:
        """One system once."""
        peer = system if isinstance(system, Peer) else None
        name = peer.name if peer else system
        slow = peer is not None and peer.slow
        documents = sample(self.corpus, self.options.documents_slow) if slow else self.corpus
        # Texts of the corpus, so that the largest buffers are there already.
        warm = [
            Document(f"warm-up-{one.document_id}", one.text, one.tokens) for one in self.corpus[-self.options.warm_up :]
        ]
        key = f"{name}.{number}"
        log = self.folder / f"{key}.log"
        with ExitStack() as stack:
            topic = stack.enter_context(self.servers.topic(key))
            if peer:
                system = PeerSystem(peer, topic, len(documents), self.servers, self.options, log)
            else:
                system = Albertine(name, topic, key.replace(".", "-"), self.servers, self.options, log)
            stack.callback(system.kill)
            system.await_ready(peer.processes if peer else 1)
            self.servers.send(topic, warm)
            # A peer makes its table before it joins its group.
            system.await_rows(len(warm))
            time.sleep(self.options.pause)
            begin, own_before, all_before = time.monotonic(), system.core_seconds(), busy_core_seconds()
            self.servers.send(topic, documents)
            system.await_rows(len(warm) + len(documents))
            seconds = time.monotonic() - begin
            used, busy = system.core_seconds() - own_before, busy_core_seconds() - all_before
            self.labels[name] = system.labels()
            own = system.end()
        mean = statistics.mean(document.tokens for document in documents)
        return Run(
            system=name,
            round=number + 1,
            documents=len(documents),
            mean_tokens=round(mean, 1),
            seconds=round(seconds, 3),
            core_seconds=round(used, 2),
            elsewhere=round(max(0.0, busy - used) / seconds / cores(), 3),
            own=own,
        )

    def window(self) -> int:
        """Tokens that peers read of a text."""
        return json.loads((self.options.checkpoint / "tokenizer_config.json").read_text())["model_max_length"]

    def agreement(self, name: str, fitting: bool) -> float:
        """Share of documents labelled as at full depth: of those that fit the window, or of those that do not, too."""
        ours, theirs = self.labels[FULL_DEPTH], self.labels[name]
        window = self.window()
        ids = [one.document_id for one in self.corpus if not fitting or one.tokens <= window]
        shared = [one for one in ids if one in ours and one in theirs]
        return statistics.mean(ours[one] == theirs[one] for one in shared) if shared else 0.0

    def speeds(self, name: str) -> list[float]:
        """Documents a second in each round."""
        return [run.speed for run in sorted(self.runs, key=lambda run: run.round) if run.system == name]

    def ratios(self, name: str, other: str) -> list[float]:
        """How many times as fast, round by round."""
        return [one / two for one, two in zip(self.speeds(name), self.speeds(other))]

    def table(self) -> str:
        """Markdown."""
        baselines = [name for name in (PLAIN, INT8) if self.speeds(name)]
        titles = {ALBERTINE: "albertine", FULL_DEPTH: "albertine, every text through all passes"}
        titles |= {peer.name: peer.title for peer in self.peers}
        heads = ["System", "Documents", "Documents/s, median (spread)", "Documents per core-second"]
        heads += [f"Times `{name}`" for name in baselines]
        heads += ["albertine is faster by (rounds)", "at full depth by (rounds)", "Labels equal to full depth's"]
        elsewhere = max(run.elsewhere for run in self.runs)
        lines = [
            f"{processor()}; {self.options.rounds} interleaved rounds; {self.described()}; broker, database and whatever "
            f"else ran took {elsewhere:.0%} of the cores at most.",
            "",
            f"| {' | '.join(heads)} |",
            "|---" * len(heads) + "|",
        ]
        for name, title in titles.items():
            speeds = self.speeds(name)
            documents = next(run.documents for run in self.runs if run.system == name)
            thrift = [run.documents / run.core_seconds for run in self.runs if run.system == name]
            cells = [title, f"{documents:,}", spread(speeds), f"{statistics.median(thrift):.1f}"]
            cells += [f"{statistics.median(self.ratios(name, other)):.2f}" for other in baselines]
            cells += ["" if name == ours else spread(self.ratios(ours, name), 2) for ours in (ALBERTINE, FULL_DEPTH)]
            cells.append("" if name == FULL_DEPTH else f"{self.agreement(name, fitting=False):.1%}")
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    def described(self) -> str:
        """The corpus in words."""
        tokens = [document.tokens for document in self.corpus]
        longer = sum(count > self.window() for count in tokens)
        return (
            f"{len(tokens):,} documents of {statistics.mean(tokens):.0f} tokens on average, {max(tokens)} at most, "
            f"{longer} longer than the window of {self.window()}"
        )

    def report(self) -> dict:
        """Everything, for a file."""
        return {
            "core": processor(),
            "rounds": self.options.rounds,
            "model": self.options.model.name,
            "corpus": self.described(),
            "runs": [asdict(run) | {"documents_per_second": round(run.speed, 2)} for run in self.runs],
            "agreement": {
                peer.name: {
                    "fitting_window": round(self.agreement(peer.name, fitting=True), 4),
                    "all": round(self.agreement(peer.name, fitting=False), 4),
                }
                for peer in self.peers
            },
        }


def sample(corpus: Sequence[Document], count: int) -> list[Document]:
    """So many documents in the corpus's order, spread evenly over the lengths, so that their mean is that of all."""
    by_length = sorted(range(len(corpus)), key=lambda place: corpus[place].tokens)
    step = len(corpus) / count
    return [corpus[place] for place in sorted(by_length[int((number + 0.5) * step)] for number in range(count))]


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median, smallest and largest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def cores() -> int:
    """Cores that this machine gives."""
    return len(os.sched_getaffinity(0))


def busy_core_seconds() -> float:
    """Time that the cores have worked since the machine started: all but idle and waiting for disks."""
    times = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(times) - times[3] - times[4]) / TICKS


def session_core_seconds(session: int) -> float:
    """Time that the processes of a session have been on a core, with that of their children that have ended."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name, which may hold anything but ends with the last parenthesis.
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            ticks += sum(int(value) for value in fields[11:15])
    return ticks / TICKS


def processor() -> str:
    """Name and number of the cores, and what they multiply bytes with."""
    facts = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    flags = facts.get("flags", "").split()
    vector = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    vnni = "VNNI" if any("vnni" in flag for flag in flags) else "without VNNI"
    return f"{cores()} cores of {facts.get('model name', os.uname().machine)}, {vector} {vnni}"


def read_corpus(options: argparse.Namespace) -> list[Document]:
    """As many documents as asked for, each with the number of its tokens."""
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    found = []
    with options.corpus.open(encoding="utf-8") as lines:
        records = (json.loads(line) for line in lines)
        # Some at a time: a corpus may be much longer than what is asked for.
        for batch in iter(lambda: list(itertools.islice(records, 256)), []):
            for record, encoding in zip(batch, tokenizer.encode_batch_fast([record["text"] for record in batch])):
                if options.tokens_max is None or len(encoding.ids) <= options.tokens_max:
                    found.append(Document(record["id"], record["text"], len(encoding.ids)))
            if len(found) >= options.documents:
                return found[: options.documents]
    raise SystemExit(f"the corpus has {len(found)} documents of this kind, and {options.documents} were asked for")


def model_folder(name: str) -> Path:
    """A model by the name of its folder here, or by its path."""
    named = REPOSITORY / "models" / name
    folder = named if (named / "model.toml").is_file() else Path(name).resolve()
    if not (folder / "model.toml").is_file():
        raise argparse.ArgumentTypeError(f"neither {named} nor {folder} is a model folder")
    return folder


def parse() -> argparse.Namespace:
    """The command line."""
    names = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="file that corpus.py wrote")
    parser.add_argument("--model", type=model_folder, required=True, help="name or path of a model folder")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder that checkpoint.py wrote from it")
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--documents-slow", type=int, help=f"for {PLAIN} only; as many as --documents if not given")
    parser.add_argument("--tokens-max", type=int, help="leave out longer texts: with the model's window none is cut")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=64, help="documents before the clock starts")
    parser.add_argument(
        "--pause",
        type=float,
        default=2.0,
        help="seconds between warm-up and clock",
    )
    parser.add_argument("--peers", nargs="+", choices=names, default=names, metavar="PEER", help=", ".join(names))
    parser.add_argument("--albertine", type=Path, default=REPOSITORY / "target/debug/albertine", help="the program")
    parser.add_argument("--logs", type=Path, help="keep logs and configurations in this folder")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    options = parser.parse_args()
    options.checkpoint = options.checkpoint.resolve()
    options.documents_slow = min(options.documents_slow or options.documents, options.documents)
    options.warm_up = max(PARTITIONS, min(options.warm_up, options.documents))
    return options


def main():
    """Measures, prints and judges."""
    options = parse()
    # So that an interrupted comparison cleans up as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("interrupted"))
    corpus = read_corpus(options)
    with ExitStack() as stack:
        folder = options.logs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        comparison = Comparison(options, corpus, folder)
        comparison.measure()
    print(comparison.table())
    if options.json:
        options.json.write_text(json.dumps(comparison.report(), indent=2) + "\n")
    disturbed = [f"{run.system} in round {run.round}" for run in comparison.runs if run.elsewhere > ELSEWHERE_MAX]
    if disturbed:
        print(f"\nOther work ran beside {', '.join(disturbed)}: repeat this on a quiet machine.")
    # Longer texts are cut by peers and read whole by albertine, so their labels may differ for good reason.
    shares = {peer.name: comparison.agreement(peer.name, fitting=True) for peer in comparison.peers}
    print(f"\nEqual labels where a text fits the window: {', '.join(f'{n} {s:.1%}' for n, s in shares.items())}.")
    too_small = [name for name, share in shares.items() if share < AGREEMENT_MIN]
    if too_small:
        raise SystemExit(f"not the same work: fewer than {AGREEMENT_MIN:.0%} equal labels with {', '.join(too_small)}")


if __name__ == "__main__":
    main()
