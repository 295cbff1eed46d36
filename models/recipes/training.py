"""Training loop of the recipe: length-sorted batches, checkpoints that resume, optional second process.

One thread a process: where other work shares the cores, threads that wait for each other at every product lose more
than they gain. `--processes 2` averages gradients once a step instead.
"""

import datetime
import logging
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import distributed

LOG = logging.getLogger("albert_sentiment")

CLASSIFIER_TOKEN = 101
SEPARATOR_TOKEN = 102

# Tokens of one batch, padding included. Smaller wastes time on overhead, larger needs more data for as many steps.
BATCH_TOKENS = 2048
BATCH_ROWS = 96

# Rows sorted by length together: enough for batches without padding, few enough to keep them mixed.
SORTED_CHUNK = 6144

SECONDS_BETWEEN_CHECKPOINTS = 120


def load_tokenizer(path):
    """The lower-case WordPiece tokenizer without padding and truncation."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encode(tokenizer, texts):
    """Token ids of each text without special tokens."""
    # A text is cut in characters first: no window reaches beyond a few thousand of them.
    encoded = tokenizer.encode_batch([text[:6000] for text in texts], add_special_tokens=False)
    return [row.ids for row in encoded]


def framed(ids):
    """A window between its two special tokens."""
    return [CLASSIFIER_TOKEN, *ids, SEPARATOR_TOKEN]


def group_by_length(lengths, order, batch_tokens, batch_rows):
    """Indices in batches of similar length, each within the token budget."""
    batches = []
    for begin in range(0, len(order), SORTED_CHUNK):
        chunk = sorted(order[begin : begin + SORTED_CHUNK], key=lambda index: lengths[index])
        batch = []
        for index in chunk:
            if batch and ((len(batch) + 1) * lengths[index] > batch_tokens or len(batch) >= batch_rows):
                batches.append(batch)
                batch = []
            batch.append(index)
        batches.append(batch)
    return batches


def padded(rows):
    """Input ids and attention mask of rows that already carry their special tokens."""
    longest = max(len(row) for row in rows)
    input_ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return input_ids, mask


def epoch_batches(examples, encoded, epoch, seed, max_length):
    """The epoch's batches of (rows, labels, weights); a long text gives a random window, new in every epoch."""
    generator = random.Random(seed * 1000 + epoch)
    windows = []
    for ids in encoded:
        size = max_length - 2
        if len(ids) > size:
            # Half the windows are shorter, so that lengths in between are seen too.
            size = generator.choice([size, size, size // 2, size // 4])
        begin = generator.randint(0, max(0, len(ids) - size))
        windows.append(framed(ids[begin : begin + size]))
    order = list(range(len(examples)))
    generator.shuffle(order)
    batches = group_by_length([len(row) for row in windows], order, BATCH_TOKENS, BATCH_ROWS)
    generator.shuffle(batches)
    for batch in batches:
        labels = torch.tensor([examples[index].label for index in batch])
        weights = torch.tensor([examples[index].weight for index in batch])
        yield [windows[index] for index in batch], labels, weights


def average_gradients(parameters):
    """Replaces every gradient by its mean over the processes."""
    flat = torch.cat([parameter.grad.reshape(-1) for parameter in parameters])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    begin = 0
    for parameter in parameters:
        end = begin + parameter.numel()
        parameter.grad.copy_(flat[begin:end].view_as(parameter))
        begin = end


def rate_at(step, steps):
    """Share of the full learning rate: a short rise, then a straight fall to a fiftieth."""
    return min(1.0, (step + 1) / (0.06 * steps)) * max(0.02, 1.0 - step / steps)


def train(network, examples, encoded, options, loss_of):
    """Trains in place for `options.steps` steps; `loss_of(rows, labels, weights)` gives a scalar.

    `options.checkpoint` is read if it exists, so a killed run continues where its last checkpoint stood.
    """
    torch.set_num_threads(1)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=options.rate, weight_decay=0.01, fused=True)
    checkpoint = Path(options.checkpoint)
    step = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["network"])
        optimiser.load_state_dict(saved["optimiser"])
        step = saved["step"]
        LOG.info("resumed at step %d", step)
    network.train()
    started = saved_at = time.monotonic()
    tokens = 0
    losses = 0.0
    batches = steps_from(step, examples, encoded, options)
    for done, (rows, labels, weights) in enumerate(batches, 1):
        for group in optimiser.param_groups:
            group["lr"] = options.rate * rate_at(step, options.steps)
        loss = loss_of(rows, labels, weights)
        optimiser.zero_grad()
        loss.backward()
        if options.processes > 1:
            average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step += 1
        losses += loss.item()
        tokens += sum(len(row) for row in rows)
        if done % 50 == 0:
            speed = tokens / (time.monotonic() - started)
            LOG.info("step %d of %d, loss %.4f, %.0f tokens/s a process", step, options.steps, losses / 50, speed)
            losses = 0.0
        if options.rank == 0 and time.monotonic() - saved_at > SECONDS_BETWEEN_CHECKPOINTS:
            save(checkpoint, network, optimiser, step)
            saved_at = time.monotonic()
    if options.rank == 0:
        save(checkpoint, network, optimiser, step)


def steps_from(step, examples, encoded, options):
    """Batches of this process from `step` on, over as many epochs as are needed."""
    position = 0
    epoch = 0
    while True:
        for batch in epoch_batches(examples, encoded, epoch, options.seed, options.max_length):
            if position >= options.steps * options.processes:
                return
            if position >= step * options.processes and position % options.processes == options.rank:
                yield batch
            position += 1
        epoch += 1


def save(path, network, optimiser, step):
    """Writes the checkpoint under a temporary name first, so that a kill never leaves half a file."""
    partial = path.with_suffix(".partial")
    torch.save({"network": network.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, partial)
    partial.replace(path)


def join_processes(options):
    """Connects the processes of one run; they find each other over a loopback port."""
    if options.processes > 1:
        distributed.init_process_group(
            "gloo",
            init_method=f"tcp://127.0.0.1:{options.port}",
            rank=options.rank,
            world_size=options.processes,
            timeout=datetime.timedelta(minutes=30),
        )


def predict(run, encoded, max_length, batch_tokens=4096):
    """Runs `run(input_ids, mask)` over first windows and returns its outputs in order, as one tensor."""
    rows = [framed(ids[: max_length - 2]) for ids in encoded]
    batches = group_by_length([len(row) for row in rows], list(range(len(rows))), batch_tokens, 128)
    outputs = [None] * len(rows)
    with torch.inference_mode():
        for batch in batches:
            result = run(*padded([rows[index] for index in batch]))
            for place, index in enumerate(batch):
                outputs[index] = result[place].float()
    return torch.stack(outputs)
