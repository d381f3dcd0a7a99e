"""Take away what a network needs least: single weights, or whole units; what is left learns to do without.

Weights are taken by their size, over all layers at once (magnitude pruning); units by the product of the norms of what
comes in and what goes out, layer by layer. Units that are taken make the layers smaller, so the model is quicker too;
weights of zero make it smaller only where it is packed.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.errors.platform import NotSupported
from modelyard.integrations.networks.graph import BENT, Layer, Network

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_BETWEEN: Final = BENT | {"Add", "Identity", "Dropout", "Cast"}


@dataclass(frozen=True, slots=True)
class Hidden:
    """Units between two dense layers that nothing else reads."""

    before: Layer
    after: Layer


def smallest(network: Network, part: float) -> "dict[str, Array]":
    """Masks of 1 and 0 for the weights of all layers, `part` of them 0: the smallest, in the spread of their layer."""
    import numpy as np

    sizes = {}
    for layer in network.layers:
        weight = np.abs(network.weights[layer.weight])
        sizes[layer.weight] = weight / (weight.std() or 1.0)
    limit = np.quantile(np.concatenate([each.ravel() for each in sizes.values()]), part)
    return {name: (each > limit).astype(np.float32) for name, each in sizes.items()}


def hidden(network: Network) -> list[Hidden]:
    """Where units can be taken out.

    Raises:
        NotSupported: nowhere.
    """
    found = [pair for layer in network.layers if (pair := _pair(network, layer)) is not None]
    if not found:
        raise NotSupported(
            "no units lie between two dense layers of this model alone", hint="prune-magnitude or int8 may help"
        )
    return found


def without_units(network: Network, part: float) -> "dict[str, Array]":
    """The weights with `part` of the units of each hidden layer taken out, at least one left."""
    import numpy as np

    made = dict(network.weights)
    for pair in hidden(network):
        weight, after = made[pair.before.weight], made[pair.after.weight]
        units, inputs = pair.before.unit_axis, 1 - pair.after.unit_axis
        count = weight.shape[units]
        matters = np.linalg.norm(weight, axis=1 - units) * np.linalg.norm(after, axis=1 - inputs)
        kept = np.sort(np.argsort(-matters, kind="stable")[: max(1, round((1 - part) * count))])
        made[pair.before.weight] = np.take(weight, kept, axis=units)
        made[pair.after.weight] = np.take(after, kept, axis=inputs)
        if pair.before.bias is not None:
            bias = made[pair.before.bias]
            made[pair.before.bias] = np.take(bias, kept, axis=bias.ndim - 1)
    return made


def _pair(network: Network, layer: Layer) -> Hidden | None:
    """The dense layer that alone reads a dense layer's units, through what works element by element."""
    if network.weights[layer.weight].ndim != 2:  # noqa: PLR2004  (units and inputs)
        return None
    value = layer.node
    while True:
        readers = [node for node in network.nodes if value in node.input]
        if len(readers) != 1 or value == network.output:
            return None
        [reader] = readers
        after = next((each for each in network.layers if each.node == reader.output[0]), None)
        if after is not None:
            is_dense = network.weights[after.weight].ndim == 2 and reader.input[0] == value  # noqa: PLR2004
            return Hidden(layer, after) if is_dense else None
        if reader.op_type not in _BETWEEN or not _keeps_units(network, reader, value, layer):
            return None
        value = reader.output[0]


def _keeps_units(network: Network, node: Any, value: str, layer: Layer) -> bool:  # noqa: ANN401
    """Whether nothing but the layer's own bias, or single numbers, meets its units in this node."""
    others = [name for name in node.input if name and name != value]
    return all(name == layer.bias or (name in network.weights and network.weights[name].size == 1) for name in others)
