"""The mixture of experts in PyTorch float64: the objective, files in and out. Run alone, it prints the version and the BLAS."""
import os
import sys

import numpy
import torch

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)


def read(folder, name, rows=None):
    """A vector, or a matrix of `rows` rows stored column by column, as a contiguous tensor."""
    values = torch.from_numpy(numpy.fromfile(os.path.join(folder, name + ".in")))
    return values if rows is None else values.reshape(-1, rows).t().contiguous()


def write(folder, **results):
    for name, value in results.items():
        numpy.asarray(value, dtype=numpy.float64).tofile(os.path.join(folder, name + ".out"))


def objective(zeta, x, y, u, b, slope, intercept, activation):
    """Half the sum of squares; u is d_gate x k, slope d x k."""
    gate = torch.softmax(torch.addmm(b, zeta, u), dim=1)
    expert = torch.addmm(intercept, x, slope)
    if activation == "gelu":
        expert = torch.nn.functional.gelu(expert)
    residual = y - (gate * expert).sum(dim=1)
    return torch.dot(residual, residual) / 2


def blas():
    torch.ones(8, 8) @ torch.ones(8, 8)
    with open("/proc/self/maps") as maps:
        files = {os.path.basename(line.split()[-1]) for line in maps if "blas" in line.lower() or "mkl_rt" in line}
    return ", ".join(sorted(files)) or "unknown"


if __name__ == "__main__":
    print("PyTorch", torch.__version__ + ", CPU capability", torch.__config__.show().split("CPU capability usage: ")[1].split("\n")[0]
          + ", BLAS", blas())
    sys.exit(0)
