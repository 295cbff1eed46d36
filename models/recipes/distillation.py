"""How the two networks learn: the teachers from labels, the student from the teachers and from labels, at every depth.

After Jiao et al. 2020, "TinyBERT: Distilling BERT for Natural Language Understanding": hidden states and logits of
teachers, on texts with and without labels.
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


def cross_entropy(logits, labels, weights, among):
    """Mean loss of rows by their weights, each between the labels that it is decided among; rows without label (-1) count nothing."""
    bits = among[:, None] >> torch.arange(logits.shape[1], device=logits.device) & 1
    between = logits.float().masked_fill((bits == 0) & (among[:, None] > 0), -torch.inf)
    losses = functional.cross_entropy(between, labels.clamp_min(0), reduction="none")
    return (losses * weights * (labels >= 0)).mean()


def teacher_loss(teacher, machine):
    """Loss of a teacher on a batch, from its labels."""

    def loss_of(input_ids, mask, labels, weights, among):
        with machine.precision():
            logits = teacher(input_ids, networks.attention_bias(mask)).logits
        return cross_entropy(logits, labels, weights, among)

    return loss_of


def followed_states():
    """(hidden state of the student, that of the teacher which it follows), where a depth of one is a depth of the other."""
    return [
        (depth, depth * networks.TEACHER_LAYERS // networks.PASSES)
        for depth in range(networks.PASSES + 1)
        if depth * networks.TEACHER_LAYERS % networks.PASSES == 0
    ]


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


def student_loss(student, teachers, weights, machine):
    """Loss of the student on a batch: every depth counts, deeper ones more."""
    # The last pass counts most: what leaves early is sure already, and what is not sure goes all the way.
    depth_weights = range(1, networks.PASSES + 1)
    pairs = followed_states()

    def loss_of(input_ids, mask, labels, row_weights, among):
        with torch.no_grad(), machine.precision():
            wanted_states, wanted = teachers(input_ids, mask)
        with machine.precision():
            states, logits = student(input_ids, mask)
        # The first token is the head's: every depth has to say a label there, which the teacher's lower layers do not know.
        real = mask[:, 1:, None].float()
        total = (
            weights.hidden
            * sum(distance(states[own][:, 1:], wanted_states[followed][:, 1:], real) for own, followed in pairs)
            / len(pairs)
        )
        for weight, own in zip(depth_weights, logits):
            distilled = (divergence(own, wanted) * row_weights).mean()
            labelled = cross_entropy(own, labels, row_weights, among)
            of_logits = weights.labels * labelled + (1 - weights.labels) * distilled
            total = total + weight / sum(depth_weights) * of_logits
        return total

    return loss_of
