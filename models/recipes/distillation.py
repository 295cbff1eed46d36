"""How the two networks learn: the teacher from labels, the student from the teacher and from labels, at every depth.

After Jiao et al. 2020, "TinyBERT: Distilling BERT for Natural Language Understanding": hidden states and logits of the
teacher, on texts with and without labels.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

import networks

# Softens both distributions, so that the student also learns what the teacher finds second best.
TEMPERATURE = 2.0


@dataclass(frozen=True)
class Weights:
    """What counts how much: hidden states beside logits, and true labels beside the teacher's logits."""

    hidden: float
    labels: float


def cross_entropy(logits, labels, weights):
    """Mean loss of rows by their weights; rows without label (-1) count nothing."""
    losses = functional.cross_entropy(logits.float(), labels.clamp_min(0), reduction="none")
    return (losses * weights * (labels >= 0)).mean()


def teacher_loss(teacher, machine):
    """Loss of the teacher on a batch, from its labels."""

    def loss_of(batch):
        input_ids, mask = batch.inputs(machine.device)
        with machine.precision():
            logits = teacher(input_ids=input_ids, attention_mask=mask).logits
        return cross_entropy(logits, *batch.truth(machine.device))

    return loss_of


def teacher_depth(depth):
    """The teacher's layer that a depth of the student follows; 0 is the embedding."""
    return depth * networks.TEACHER_LAYERS // networks.PASSES


def distance(state, wanted, real):
    """Mean squared distance of hidden states over real tokens, in variances of the teacher's."""
    wanted = wanted.float()
    values = real.sum() * networks.HIDDEN_SIZE
    return ((state.float() - wanted).square() * real).sum() / values / (wanted.var() + 1e-6)


def divergence(logits, wanted):
    """Kullback-Leibler divergence of each row from the teacher's softened distribution, as a gradient of full size."""
    own = functional.log_softmax(logits.float() / TEMPERATURE, -1)
    wanted = functional.softmax(wanted.float() / TEMPERATURE, -1)
    return TEMPERATURE**2 * functional.kl_div(own, wanted, reduction="none").sum(-1)


def student_loss(student, teacher, weights, machine):
    """Loss of the student on a batch: every depth counts, deeper ones more."""
    depth_sum = sum(range(1, networks.PASSES + 1))

    def loss_of(batch):
        input_ids, mask = batch.inputs(machine.device)
        labels, row_weights = batch.truth(machine.device)
        with torch.no_grad(), machine.precision():
            wanted = teacher(input_ids=input_ids, attention_mask=mask, output_hidden_states=True)
        with machine.precision():
            states, logits = student(input_ids, mask)
        real = mask[:, :, None].float()
        total = weights.hidden / networks.PASSES * distance(states[0], wanted.hidden_states[0], real)
        for depth in range(1, networks.PASSES + 1):
            hidden = distance(states[depth], wanted.hidden_states[teacher_depth(depth)], real)
            own = logits[depth - 1]
            distilled = (divergence(own, wanted.logits) * row_weights).mean()
            labelled = cross_entropy(own, labels, row_weights)
            of_logits = weights.labels * labelled + (1 - weights.labels) * distilled
            total = total + weights.hidden / networks.PASSES * hidden + depth / depth_sum * of_logits
        return total

    return loss_of
