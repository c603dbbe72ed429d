"""Times objective and gradient by autograd. Arguments: folder, rows, k, activation, repetitions."""
import sys
import time

import torch
from torch_model import objective, read, write

folder, n, k, activation, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
zeta, x, y = read(folder, "zeta", n), read(folder, "x", n), read(folder, "y")
u, b = read(folder, "u", zeta.shape[1]), read(folder, "b")
eta = read(folder, "eta", x.shape[1] + 1)
leaves = [t.clone().requires_grad_(True) for t in (u, b, eta[:-1].contiguous(), eta[-1].contiguous())]


def one_pass():
    value = objective(zeta, x, y, *leaves, activation)
    return value, torch.autograd.grad(value, leaves)


for _ in range(3):
    one_pass()
seconds = []
for _ in range(times):
    start = time.perf_counter()
    value, gradient = one_pass()
    seconds.append(time.perf_counter() - start)

gates = torch.cat([gradient[0], gradient[1].reshape(1, k)]).t().reshape(-1)
experts = torch.cat([gradient[2], gradient[3].reshape(1, k)]).t().reshape(-1)
write(folder, seconds=seconds, value=[value.item()], gradient=torch.cat([gates, experts]).numpy())
