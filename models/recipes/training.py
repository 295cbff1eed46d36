"""The training loop: token budgets, checkpoints that resume, one GPU or one process a core.

One thread a process on CPUs: where other work shares the cores, threads that wait for each other at every product lose more
than they gain. `--processes` averages gradients once a step instead.
"""

import collections
import itertools
import logging
import signal
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

import drawing
import steps

LOG = logging.getLogger("recipe")

SECONDS_BETWEEN_CHECKPOINTS = 120

# Steps between two lines of the log.
STEPS_BETWEEN_LINES = 50

# Steps over which the learning rate rises where it does, so that the first gradients, which say little, move little, and its lowest
# share where it falls.
RISE_STEPS = 75
LOWEST = 0.02

# Processes that draw rows while a GPU computes, a chunk each; one of them would be slower than the GPU.
DRAWING_PROCESSES = 6

# Seconds that one process waits for the others: none takes so long for a step.
STEP_SECONDS_MAX = 1800


@dataclass(frozen=True)
class Machine:
    """What trains: a device, and on CPUs which of how many processes this is."""

    device: str
    rank: int = 0
    processes: int = 1
    # Where there are several processes: what they meet at, and a folder for memory that they share.
    barrier: Any = None
    shared: str | None = None

    @property
    def dtype(self):
        """What products are computed in: bfloat16 where the device has it, which is faster and as good."""
        return torch.bfloat16 if self.device == "cuda" or torch.cpu._is_avx512_bf16_supported() else torch.float32

    def precision(self):
        """Products in `dtype` for as long as the block lasts."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16)


@dataclass(frozen=True)
class Schedule:
    """How long, how fast, and where a stopped run goes on.

    A run that does not fall can be made longer at any time; one that falls brings in what it has learnt. After Hu et
    al. 2024, "MiniCPM" (warm up, stay, decay).
    """

    tokens: int
    rate: float
    checkpoint: Path
    # Over which the rate rises, from nothing.
    rise_tokens: int = 0
    falls: bool = True

    def rate_at(self, tokens):
        """The learning rate when so many tokens are seen."""
        rise = min(1.0, (tokens + 1000) / (self.rise_tokens + 1000))
        fall = max(LOWEST, 1.0 - tokens / self.tokens) if self.falls else 1.0
        return self.rate * rise * fall


def chunks(mixture, first, processes):
    """Numbers of chunks with their batches, from `first` on, drawn ahead by `processes` (0: here)."""
    if not processes:
        for number in itertools.count(first):
            yield number, mixture.batches(number)
    # The context of a pool whose server has no thread and no GPU, and imports all once.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(processes, context, drawing.remember, (mixture,)) as pool:
        waiting = collections.deque(pool.submit(drawing.batches, first + place) for place in range(processes))
        for number in itertools.count(first):
            batches = waiting.popleft().result()
            waiting.append(pool.submit(drawing.batches, number + processes))
            yield number, batches


def is_complete(schedule):
    """Whether a run was trained to its end."""
    if not schedule.checkpoint.exists():
        return False
    saved = torch.load(schedule.checkpoint, weights_only=True, map_location="cpu", mmap=True)
    return saved["tokens"] >= schedule.tokens


def train(network, mixture, schedule, machine, loss_of):
    """Trains in place until the schedule's tokens are seen; `loss_of` is what `steps` take.

    The schedule's checkpoint is read if it exists, so a killed run continues where its last one stood.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    on_gpu = machine.device == "cuda"
    optimiser = torch.optim.AdamW(parameters, lr=schedule.rate, weight_decay=0.01, fused=True, capturable=on_gpu)
    position = {"tokens": 0, "chunk": 0, "batch": 0}
    if schedule.checkpoint.exists():
        saved = torch.load(schedule.checkpoint, weights_only=True, map_location=machine.device)
        network.load_state_dict(saved["network"])
        optimiser.load_state_dict(saved["optimiser"])
        position = {name: saved[name] for name in position}
        if machine.rank == 0:
            LOG.info("goes on at %d of %d tokens", position["tokens"], schedule.tokens)
    network.train()
    of_step = (loss_of, parameters, optimiser, Gradients(parameters, machine).average)
    stepper = steps.Recorded(*of_step, mixture.batch_tokens) if on_gpu else steps.Direct(*of_step)
    progress = Progress(schedule, position["tokens"])
    skipped = position["batch"]
    for chunk, batches in chunks(mixture, position["chunk"], DRAWING_PROCESSES if on_gpu else 0):
        for first in range(skipped, len(batches) - machine.processes + 1, machine.processes):
            loss = stepper.step(batches[first + machine.rank], schedule.rate_at(position["tokens"]))
            seen = sum(batch.tokens for batch in batches[first : first + machine.processes])
            position = {"tokens": position["tokens"] + seen, "chunk": chunk, "batch": first + machine.processes}
            is_last = position["tokens"] >= schedule.tokens
            if machine.rank == 0:
                progress.step(loss, position["tokens"])
                if is_last or progress.is_checkpoint_due():
                    save(schedule.checkpoint, network, optimiser, position)
            if is_last:
                network.eval()
                return
        skipped = 0


class Progress:
    """Lines of the log, and when a checkpoint is due."""

    def __init__(self, schedule, tokens):
        self.schedule, self.begun_at, self.started = schedule, tokens, time.monotonic()
        self.saved = self.started
        self.losses = []

    def step(self, loss, tokens):
        """One more step."""
        self.losses.append(loss)
        if len(self.losses) == STEPS_BETWEEN_LINES:
            mean = torch.stack(self.losses).mean().item()
            speed = (tokens - self.begun_at) / (time.monotonic() - self.started)
            LOG.info("%d of %d tokens, loss %.4f, %.0f tokens/s", tokens, self.schedule.tokens, mean, speed)
            self.losses = []

    def is_checkpoint_due(self):
        """Whether the last one is old."""
        if time.monotonic() - self.saved < SECONDS_BETWEEN_CHECKPOINTS:
            return False
        self.saved = time.monotonic()
        return True


class Gradients:
    """Gradients of all parameters, and their mean over the processes of a run, through memory that these share."""

    def __init__(self, parameters, machine):
        self.parameters, self.machine = parameters, machine
        self.sizes = [parameter.numel() for parameter in parameters]
        if machine.processes > 1:
            path = str(Path(machine.shared) / f"gradients-{sum(self.sizes)}")
            size = machine.processes * sum(self.sizes)
            self.table = torch.from_file(path, shared=True, size=size).view(machine.processes, -1)

    def average(self):
        """Replaces every gradient by its mean over the processes."""
        if self.machine.processes == 1:
            return
        own = self.table[self.machine.rank].split(self.sizes)
        for values, parameter in zip(own, self.parameters):
            values.copy_(parameter.grad.view(-1))
        self.machine.barrier.wait(STEP_SECONDS_MAX)
        for values, parameter in zip(self.table.mean(0).split(self.sizes), self.parameters):
            parameter.grad.copy_(values.view_as(parameter))
        # Nobody writes before all have read.
        self.machine.barrier.wait(STEP_SECONDS_MAX)


def save(path, network, optimiser, position):
    """Writes the checkpoint under a temporary name first, so that a kill never leaves half a file."""
    partial = path.with_suffix(".partial")
    torch.save({"network": network.state_dict(), "optimiser": optimiser.state_dict(), **position}, partial)
    partial.replace(path)


def on_machine(device, processes, run, *arguments):
    """Calls `run(machine, *arguments)` in as many processes as are asked for; on a GPU in this one."""
    if device == "cuda" or processes == 1:
        if device == "cpu":
            torch.set_num_threads(1)
        run(Machine(device), *arguments)
        return
    barrier = multiprocessing.get_context("spawn").Barrier(processes)
    with tempfile.TemporaryDirectory() as shared:
        multiprocessing.spawn(in_process, (processes, barrier, shared, run, arguments), nprocs=processes)


def in_process(rank, processes, barrier, shared, run, arguments):
    """One of the processes of a run."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    # torch interrupts the processes when their parent dies; a shell's background job ignores that unless told otherwise.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    run(Machine("cpu", rank, processes, barrier, shared), *arguments)
