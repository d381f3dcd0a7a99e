"""What parameters of jobs are made of: a few plain types, each of which says what it expects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from modelyard.domain.access import Verb
from modelyard.domain.errors.base import Detail, quote
from modelyard.domain.errors.platform import InvalidRequest

_LONGEST_ECHO: Final = 60


class Parameter(Protocol):
    """One parameter. `default` None with `required` false leaves it out."""

    @property
    def text(self) -> str:
        """What it does."""

    @property
    def required(self) -> bool:
        """Whether it has to be given."""

    @property
    def default(self) -> Any:  # noqa: ANN401  (a plain JSON value)
        """What stands for it when it is not given."""

    def expects(self) -> str:
        """What it may be, in words."""

    def fits(self, value: object) -> bool:
        """Whether it may be this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text of bounded length."""

    text: str
    required: bool = False
    default: str | None = None
    longest: int = 255

    def expects(self) -> str:
        """In words."""
        return f"a text of 1 to {self.longest} characters"

    def fits(self, value: object) -> bool:
        """Whether it is one."""
        return isinstance(value, str) and 0 < len(value) <= self.longest


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of a few texts."""

    text: str
    choices: tuple[str, ...]
    required: bool = False
    default: str | None = None

    def expects(self) -> str:
        """In words."""
        return "one of " + ", ".join(self.choices)

    def fits(self, value: object) -> bool:
        """Whether it is one."""
        return isinstance(value, str) and value in self.choices


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number from `low` to `high`, both included; `whole` ones have no fraction."""

    text: str
    low: float
    high: float
    required: bool = False
    default: float | None = None
    whole: bool = False

    def expects(self) -> str:
        """In words."""
        return f"a {'whole ' if self.whole else ''}number from {self.low:g} to {self.high:g}"

    def fits(self, value: object) -> bool:
        """Whether it is one."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """Yes or no."""

    text: str
    required: bool = False
    default: bool | None = None

    def expects(self) -> str:
        """In words."""
        return "true or false"

    def fits(self, value: object) -> bool:
        """Whether it is one."""
        return isinstance(value, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """An object of names and values; a kind looks into it itself."""

    text: str
    required: bool = False
    default: Mapping[str, Any] | None = None
    most: int = 1000

    def expects(self) -> str:
        """In words."""
        return f"an object of at most {self.most} names"

    def fits(self, value: object) -> bool:
        """Whether it is one."""
        return isinstance(value, Mapping) and len(value) <= self.most


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A list, each of whose items is as `each` says."""

    text: str
    each: Parameter
    required: bool = False
    default: Sequence[Any] | None = None
    most: int = 1000

    def expects(self) -> str:
        """In words."""
        return f"a list of at most {self.most}, each {self.each.expects()}"

    def fits(self, value: object) -> bool:
        """Whether it is one."""
        return isinstance(value, list | tuple) and len(value) <= self.most and all(map(self.each.fits, value))


def _nothing(parameters: Mapping[str, Any], inputs: Mapping[str, Any]) -> Sequence[Detail]:
    del parameters, inputs
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKind:
    """A kind of job. Who submits one needs `verb`, on the service that the parameter `service` names if it has one.

    `inputs` are the names of files or models that it has to be given, `optional` those that it may be. `more` finds
    what is wrong beyond single parameters, in all of them and in which inputs there are. With `network` its code may
    open connections.
    """

    name: str
    text: str
    verb: Verb
    parameters: Mapping[str, Parameter]
    inputs: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    network: bool = False
    more: Callable[[Mapping[str, Any], Mapping[str, Any]], Sequence[Detail]] = field(default=_nothing)

    @property
    def asks_service(self) -> bool:
        """Whether it asks the service that its parameter `service` names."""
        return "service" in self.parameters

    def check(self, parameters: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters with defaults; raises as `check_job` does."""
        wrong = [*self._wrong_parameters(parameters), *self._wrong_inputs(inputs)]
        filled = {name: each.default for name, each in self.parameters.items() if each.default is not None}
        filled |= parameters
        if not wrong:
            wrong = list(self.more(filled, inputs))
        if wrong:
            first = wrong[0]
            raise InvalidRequest(
                f"{first['field']}: expected {first['expected']}",
                hint=f"GET /api/v1/job-kinds shows what a {self.name} takes",
                details=wrong,
            )
        return filled

    def _wrong_parameters(self, parameters: Mapping[str, Any]) -> list[Detail]:
        wrong: list[Detail] = []
        for name, value in parameters.items():
            known = self.parameters.get(name)
            if known is None:
                expected = f"one of {', '.join(self.parameters)}"
                wrong.append({"field": f"parameters.{name[:_LONGEST_ECHO]}", "expected": expected})
            elif not known.fits(value):
                received = quote(value, limit=_LONGEST_ECHO)
                wrong.append({"field": f"parameters.{name}", "expected": known.expects(), "received": received})
        for name, known in self.parameters.items():
            if known.required and name not in parameters:
                wrong.append({"field": f"parameters.{name}", "expected": known.expects(), "received": "nothing"})
        return wrong

    def _wrong_inputs(self, inputs: Mapping[str, Any]) -> list[Detail]:
        known = (*self.inputs, *self.optional)
        wrong: list[Detail] = [
            {"field": f"inputs.{name[:_LONGEST_ECHO]}", "expected": f"one of {', '.join(known) or 'nothing'}"}
            for name in inputs
            if name not in known
        ]
        wrong += [
            {"field": f"inputs.{name}", "expected": "a file or a model", "received": "nothing"}
            for name in self.inputs
            if name not in inputs
        ]
        return wrong
