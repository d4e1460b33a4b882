"""The state of a stream as named tensors: what a graph takes in and gives back."""

from collections.abc import Iterator

import torch


class GraphState:
    """Tensors by name, such as `hidden.0`; the interface and the names are those of `KineTrackState`.

    Args:
        named: the tensors, each with the batch first.
    """

    def __init__(self, named: dict[str, torch.Tensor]):
        self.named = named

    def rows(self, chosen: slice) -> "GraphState":
        """The state of some of the streams, in memory of its own."""
        return GraphState({name: tensor[chosen].clone() for name, tensor in self.named.items()})

    @staticmethod
    def join(states: "list[GraphState]") -> "GraphState":
        """The states of several streams of one input size as one batch, in this order."""
        if len(states) == 1:
            return states[0]
        return GraphState({name: torch.cat([state.named[name] for state in states]) for name in states[0].named})

    def tensors(self) -> dict[str, torch.Tensor]:
        """Copies of all tensors by name."""
        return {name: tensor.clone() for name, tensor in self.named.items()}

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Takes over what `tensors` gave.

        Raises:
            ValueError: names or shapes of another model or input size.
        """
        given, wanted = ({n: tuple(t.shape) for n, t in each.items()} for each in (tensors, self.named))
        if given != wanted:
            raise ValueError(f"The temporal state has the tensors {given}, this model and size need {wanted}.")
        self.named = {name: tensors[name].clone() for name in self.named}


def as_fields(named: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | tuple[torch.Tensor, ...]]:
    """Arguments of `KineTrackState`: `hidden.0`, `hidden.1` … become the tuple `hidden`."""
    fields = {}
    for name, tensor in named.items():
        field, _, index = name.partition(".")
        fields[field] = (*fields.get(field, ()), tensor) if index else tensor
    return fields


def symbolic_shapes(model) -> dict[str, tuple[int | str, ...]]:
    """Shapes of a model's state by name, with `batch`, `height/16` … for what depends on the input."""
    states = [model.initial_state(*given).tensors() for given in _PROBES]
    return {name: tuple(_symbols(*(state[name].shape for state in states))) for name in states[0]}


# Batch, height and width of two inputs; no two of their ratios are equal.
_PROBES = ((4, 64, 160), (5, 96, 224))


def _symbols(first: torch.Size, second: torch.Size) -> Iterator[int | str]:
    for one, other in zip(first, second, strict=True):
        if one == other:
            yield one
            continue
        symbol, small = next(
            (name, small)
            for name, small, large in zip(("batch", "height", "width"), *_PROBES, strict=True)
            if one * large == other * small
        )
        yield symbol if one == small else f"{symbol}/{small // one}"


def evaluate_shape(shape: tuple[int | str, ...], sizes: dict[str, int]) -> tuple[int, ...]:
    """Numbers for a shape with symbols.

    Args:
        shape: numbers, symbols, and symbols over a number.
        sizes: values of the symbols.

    Example:
        >>> evaluate_shape(("batch", "height/16", 8), {"batch": 2, "height": 64})
        (2, 4, 8)
    """

    def number(dimension: int | str) -> int:
        if not isinstance(dimension, str):
            return dimension
        symbol, _, divisor = dimension.partition("/")
        return sizes[symbol] // int(divisor or 1)

    return tuple(map(number, shape))
