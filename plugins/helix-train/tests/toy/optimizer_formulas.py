"""The published formulas of the optimizers, in float64 and a straight line each: the oracle of the tests.

Each is a function of (weight, gradient, learning rate, step from 1, memory), where memory is a dict that it
keeps what it needs in, and returns the new weight.
"""

import numpy as np


def sgd(w, g, lr, step, memory, *, momentum=0.0, dampening=0.0, decay=0.0, nesterov=False):
    g = g + decay * w
    if momentum:
        memory["b"] = g if step == 1 else momentum * memory["b"] + (1 - dampening) * g
        g = g + momentum * memory["b"] if nesterov else memory["b"]
    return w - lr * g


def adam(w, g, lr, step, memory, *, betas=(0.9, 0.999), eps=1e-8, decay=0.0, amsgrad=False):
    return adamw(w, g + decay * w, lr, step, memory, betas=betas, eps=eps, decay=0.0, amsgrad=amsgrad)


def adamw(w, g, lr, step, memory, *, betas=(0.9, 0.999), eps=1e-8, decay=0.01, amsgrad=False):
    memory["m"] = betas[0] * memory.get("m", 0) + (1 - betas[0]) * g
    memory["v"] = betas[1] * memory.get("v", 0) + (1 - betas[1]) * g**2
    memory["largest"] = np.maximum(memory.get("largest", 0), memory["v"])
    v = memory["largest"] if amsgrad else memory["v"]
    m, v = memory["m"] / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return w - lr * decay * w - lr * m / (np.sqrt(v) + eps)


def rmsprop(w, g, lr, step, memory, *, alpha=0.99, eps=1e-8, decay=0.0, momentum=0.0, centered=False):
    g = g + decay * w
    memory["v"] = alpha * memory.get("v", 0) + (1 - alpha) * g**2
    memory["mean"] = alpha * memory.get("mean", 0) + (1 - alpha) * g
    variance = memory["v"] - memory["mean"] ** 2 if centered else memory["v"]
    memory["b"] = momentum * memory.get("b", 0) + g / (np.sqrt(variance) + eps)
    return w - lr * memory["b"]


def lion(w, g, lr, step, memory, *, betas=(0.9, 0.99), decay=0.0):
    m = memory.get("m", np.zeros_like(g))
    memory["m"] = betas[1] * m + (1 - betas[1]) * g
    return w - lr * (np.sign(betas[0] * m + (1 - betas[0]) * g) + decay * w)


def schedule_free_adamw(w, g, lr, step, memory, *, betas=(0.9, 0.999), eps=1e-8, decay=0.0):
    memory["v"] = betas[1] * memory.get("v", 0) + (1 - betas[1]) * g**2
    u = g / (np.sqrt(memory["v"] / (1 - betas[1] ** step)) + eps) + decay * w
    return _averaged(w, u, lr, memory, betas[0])


def schedule_free_sgd(w, g, lr, step, memory, *, momentum=0.9, decay=0.0):
    return _averaged(w, g + decay * w, lr, memory, momentum)


def _averaged(y, u, lr, memory, beta):
    x, z = memory.get("x", y), memory.get("z", y)
    memory["squares"] = memory.get("squares", 0) + lr**2
    c = lr**2 / memory["squares"]
    memory["z"] = z - lr * u
    memory["x"] = (1 - c) * x + c * memory["z"]
    return (1 - beta) * memory["z"] + beta * memory["x"]


def muon(w, g, lr, step, memory, *, momentum=0.95, nesterov=True, decay=0.0, scale="original"):
    memory["b"] = momentum * memory.get("b", 0) + (1 - momentum) * g
    ahead = momentum * memory["b"] + (1 - momentum) * g if nesterov else memory["b"]
    rows, columns = len(w), w[0].size
    factor = max(1, rows / columns) ** 0.5 if scale == "original" else 0.2 * max(rows, columns) ** 0.5
    return (1 - lr * decay) * w - lr * factor * orthogonal(ahead.reshape(rows, columns)).reshape(w.shape)


def orthogonal(matrix, *, steps=5):
    """Newton-Schulz as what it is: a polynomial of the singular values."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    s = s / (np.linalg.norm(s) + 1e-7)
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ v


def soap(w, g, lr, step, memory, *, betas=(0.95, 0.95), eps=1e-8, decay=0.01, every=10):
    if step == 1:
        memory["c"] = [(1 - betas[1]) * _outer(g, axis) for axis in range(g.ndim)]
        memory["q"] = [np.linalg.eigh(c)[1][:, ::-1] for c in memory["c"]]
        memory["m"] = memory["v"] = np.zeros_like(g)
        return w
    q, t = memory["q"], step - 1
    memory["m"] = betas[0] * memory["m"] + (1 - betas[0]) * g
    memory["v"] = betas[1] * memory["v"] + (1 - betas[1]) * _rotate(g, [b.T for b in q]) ** 2
    m = _rotate(memory["m"], [b.T for b in q]) / (1 - betas[0] ** t)
    n = m / (np.sqrt(memory["v"] / (1 - betas[1] ** t)) + eps)
    w = (1 - lr * decay) * w - lr * _rotate(n, q)
    memory["c"] = [betas[1] * c + (1 - betas[1]) * _outer(g, axis) for axis, c in enumerate(memory["c"])]
    if t % every == 0:
        for axis, (c, b) in enumerate(zip(memory["c"], q, strict=True)):
            order = np.argsort(-np.einsum("ij,ik,kj->j", b, c, b), kind="stable")
            memory["v"] = np.take(memory["v"], order, axis=axis)
            q[axis] = np.linalg.qr(c @ b[:, order])[0]
    return w


def _outer(g, axis):
    rows = np.moveaxis(g, axis, 0).reshape(g.shape[axis], -1)
    return rows @ rows.T


def _rotate(tensor, matrices):
    for axis, matrix in enumerate(matrices):
        tensor = np.moveaxis(np.tensordot(matrix, tensor, axes=(1, axis)), 0, axis)
    return tensor
