"""A least squares fit by PyTorch's LBFGS (strong Wolfe line search) in the coordinates beta of the perturbed cosine router.
Arguments: folder, rows, activation, scale, tau1, most seconds. Writes the clock and the sum of squares at each evaluation."""
import sys
import time

import torch
from torch_model import objective, read, write

folder, n, activation = sys.argv[1], int(sys.argv[2]), sys.argv[3]
scale, tau1, most = float(sys.argv[4]), float(sys.argv[5]), float(sys.argv[6])
zeta, x, y = read(folder, "zeta", n), read(folder, "x", n), read(folder, "y")
eta = read(folder, "eta", x.shape[1] + 1)
start = (read(folder, "beta", zeta.shape[1]), read(folder, "b"), eta[:-1].contiguous(), eta[-1].contiguous())


class OutOfTime(Exception):
    pass


def fit(most_evaluations):
    beta, b, slope, intercept = leaves = [t.clone().requires_grad_(True) for t in start]
    optimiser = torch.optim.LBFGS(leaves, lr=1, max_iter=100000, max_eval=most_evaluations, tolerance_grad=1e-14,
                                  tolerance_change=0, history_size=20, line_search_fn="strong_wolfe")
    seconds, squares = [], []
    began = time.perf_counter()

    def closure():
        optimiser.zero_grad()
        u = scale * beta / (torch.linalg.vector_norm(beta, dim=0) + tau1)
        value = objective(zeta, x, y, u, b, slope, intercept, activation)
        (value / n).backward()
        seconds.append(time.perf_counter() - began)
        squares.append(2 * value.item())
        if seconds[-1] > most:
            raise OutOfTime
        return value.detach() / n

    try:
        optimiser.step(closure)
    except OutOfTime:
        pass
    return seconds, squares


fit(10)
seconds, squares = fit(1000000)
write(folder, seconds=seconds, squares=squares)
