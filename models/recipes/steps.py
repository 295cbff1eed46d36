"""One step of training: the loss of a batch, its gradients, and what the optimiser makes of them.

On a GPU a step is recorded once for each shape of a batch and replayed as a CUDA graph: a step is some thousand kernels, and
starting them one by one takes longer than they compute.
"""

import torch

import encoded

# Of the gradients of all parameters.
NORM_MAX = 1.0

# Steps of a shape that are computed directly before one is recorded: libraries choose and set up their kernels in them.
STEPS_BEFORE_RECORDING = 3


class Direct:
    """Computes every step as it comes. `loss_of(input_ids, mask, labels, weights, among)` gives a scalar; `exchange()` replaces
    the gradients by what several processes found, where there are some.
    """

    def __init__(self, loss_of, parameters, optimiser, exchange):
        self.loss_of, self.parameters, self.optimiser, self.exchange = loss_of, parameters, optimiser, exchange

    def step(self, batch, rate):
        """One step at a learning rate; gives the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return self.compute(*batch.tensors("cpu"))

    def compute(self, *tensors):
        """One step at the learning rate of the step before."""
        self.optimiser.zero_grad()
        loss = self.loss_of(*tensors)
        loss.backward()
        self.exchange()
        torch.nn.utils.clip_grad_norm_(self.parameters, NORM_MAX)
        self.optimiser.step()
        return loss.detach()


class Recorded(Direct):
    """Replays what it computed for the first batches of a shape. The optimiser has to be `capturable`."""

    def __init__(self, loss_of, parameters, optimiser, exchange, batch_tokens):
        super().__init__(loss_of, parameters, optimiser, exchange)
        self.batch_tokens = batch_tokens
        self.rate = torch.zeros((), device="cuda")
        self.stream = torch.cuda.Stream()
        # Graphs never run at once, so that all can use the same memory.
        self.pool = torch.cuda.graph_pool_handle()
        self.seen, self.graphs = {}, {}

    def step(self, batch, rate):
        """One step at a learning rate; gives the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate
        self.rate.fill_(rate)
        length = encoded.recorded_length(batch.ids.shape[1])
        tensors = batch.padded(self.batch_tokens // length, length).tensors("cuda")
        seen = self.seen[length] = self.seen.get(length, 0) + 1
        if seen <= STEPS_BEFORE_RECORDING:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                loss = self.compute(*tensors)
            torch.cuda.current_stream().wait_stream(self.stream)
            return loss
        if length not in self.graphs:
            self.graphs[length] = self.record(tensors)
        graph, inputs, loss = self.graphs[length]
        for kept, given in zip(inputs, tensors):
            kept.copy_(given)
        graph.replay()
        return loss.clone()

    def record(self, tensors):
        """The graph of a step, where it reads the batch, and where it writes the loss."""
        inputs = [tensor.clone() for tensor in tensors]
        self.optimiser.zero_grad()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            loss = self.compute(*inputs)
        # They lie in the graphs' memory, which the next one uses as well.
        self.optimiser.zero_grad()
        return graph, inputs, loss
