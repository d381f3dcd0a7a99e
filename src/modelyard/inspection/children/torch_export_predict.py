"""Answers for an exported PyTorch program; written into its package, and run by the worker of the package.

It stands alone: it needs torch and NumPy, and nothing of ours. Threads are those that the worker's surroundings say
(OMP_NUM_THREADS).
"""

import os


class Program:
    """A loaded program: arrays by name in, arrays by name out."""

    def __init__(self, path: str) -> None:
        import torch

        self._torch = torch
        program = torch.export.load(path)
        self._inputs = list(program.graph_signature.user_inputs)
        self._outputs = list(program.graph_signature.user_outputs)
        self._form = program.call_spec.in_spec
        self._module = program.module()

    def run(self, inputs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  (NumPy's types, where NumPy may be any)
        """The program's outputs for one batch."""
        torch = self._torch
        tree = torch.utils._pytree  # noqa: SLF001  (the only public face that torch.export has for trees)
        tensors = [torch.tensor(inputs[name]) for name in self._inputs]
        given, named = tree.tree_unflatten(tensors, self._form)
        with torch.inference_mode():
            answers = tree.tree_leaves(self._module(*given, **named))
        return {name: value.numpy() for name, value in zip(self._outputs, answers, strict=True)}


def load(path: str) -> Program:
    """Called once, with the package's directory."""
    return Program(os.path.join(path, "model.pt2"))  # noqa: PTH118  (older interpreters too)


def predict(inputs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Called for every batch."""
    return model.run(inputs)  # type: ignore[name-defined]  # noqa: F821  (the worker sets what `load` gave)
