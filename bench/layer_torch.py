"""Steps of the sparse layer's notebook protocol in PyTorch, in float32 (its default, and the authors') or float64.
Arguments: folder, samples, patches, dimension, experts, filters, mode, steps, precision. Mode `all` computes every expert for every
sample through a convolution, as the authors do; `routed` only the expert that was chosen. Writes CPU seconds and losses."""
import os
import sys
import time

import numpy
import torch

torch.set_num_threads(1)
torch.set_default_dtype(getattr(torch, sys.argv[9]))
folder, mode = sys.argv[1], sys.argv[7]
n, patches, d, experts, filters, steps = (int(sys.argv[i]) for i in (2, 3, 4, 5, 6, 8))


def read(name):
    return torch.from_numpy(numpy.fromfile(os.path.join(folder, name + ".in"))).to(torch.get_default_dtype())


x = read("x").reshape(n, patches, d).contiguous()
y = read("y").to(torch.int64)
weight = [w.clone().requires_grad_(True) for w in read("weight").reshape(experts, filters, d)]
bias = [b.clone().requires_grad_(True) for b in read("bias").reshape(experts, filters)]
gate = torch.zeros(experts, d, requires_grad=True)
signal = x.reshape(n, 1, patches * d)
half = filters // 2


def two_logits(z):
    z = z ** 3
    return torch.stack([z[..., :half].sum(dim=(1, 2)), z[..., half:].sum(dim=(1, 2))], dim=1)


def convolution(m, inputs):
    return torch.nn.functional.conv1d(inputs, weight[m].unsqueeze(1), bias[m], stride=d).transpose(1, 2)


def step():
    scores = torch.nn.functional.conv1d(signal, gate.unsqueeze(1), stride=d).sum(dim=2) + torch.rand(n, experts)
    value, chosen = scores.max(dim=1)
    if mode == "all":
        mask = torch.nn.functional.one_hot(chosen, experts).to(x.dtype)
        outputs = torch.stack([two_logits(convolution(m, signal * mask[:, m].reshape(n, 1, 1))) for m in range(experts)])
        output = (outputs * mask.t().unsqueeze(2)).sum(dim=0)
    else:
        output = torch.zeros(n, 2)
        for m in range(experts):
            rows = (chosen == m).nonzero()[:, 0]
            z = torch.nn.functional.linear(x.index_select(0, rows), weight[m], bias[m])
            output = output.index_copy(0, rows, two_logits(z))
    output = torch.softmax(output * value.unsqueeze(1), dim=1)
    loss = torch.nn.functional.cross_entropy(output, y)
    gradients = torch.autograd.grad(loss, weight + bias + [gate])
    with torch.no_grad():
        for m in range(experts):
            norm = gradients[m].norm() + gradients[experts + m].norm()
            if norm > 0:
                weight[m] -= 0.001 * gradients[m] / norm
                bias[m] -= 0.001 * gradients[experts + m] / norm
        gate.sub_(0.1 * gradients[-1])
    return loss.item()


step()
began = time.process_time()
losses = [step() for _ in range(steps)]
seconds = [time.process_time() - began]
for name, values in (("seconds", seconds), ("loss", losses)):
    numpy.asarray(values, dtype=numpy.float64).tofile(os.path.join(folder, name + ".out"))
