"""Runtimes: what turns the files of a serving package into answers."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from modelyard.domain.contract import ServingPackage

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How a model is to be loaded. `device` is taken literally: "cuda" never falls back to the CPU; "auto" may."""

    threads: int = 1
    device: str = "auto"


class LoadedModel(Protocol):
    """A model in memory.

    `run` takes one array an input, already checked against the contract, with the batch axis first where there is one,
    and gives one array an output of the graph (BYTES are object arrays of `bytes`). It blocks, may be called from one
    thread at a time, may release the interpreter lock, and raises whatever the library raises: hosting turns that into
    `RunFailed`. `stream` yields any number of answers to one request and stops when closed; a runtime without streams
    raises `NotSupported`.
    """

    @property
    def device(self) -> str:
        """Where it runs: "cpu", "cuda:0"."""

    @property
    def memory_bytes(self) -> int:
        """Memory that loading took, measured, not declared."""

    def run(self, batch: "Mapping[str, Array]") -> "dict[str, Array]":
        """Answers for one batch."""

    def stream(self, request: "Mapping[str, Array]") -> "AsyncIterator[dict[str, Array]]":
        """Answers to one request, one after the other."""

    def close(self) -> None:
        """Give the memory back. Idempotent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program that answers for a package in place of our own worker.

    `command` is the interpreter and its arguments, to which the path of a JSON file is added; `settings` go into that
    file; `read` is what it has to be able to read beside the package.
    """

    command: tuple[str, ...]
    settings: "Mapping[str, Any]"
    read: tuple[Path, ...] = ()


@runtime_checkable
class ProgramRuntime(Protocol):
    """A runtime whose models run in a program of its own, never in a process of ours."""

    name: str

    def program(self, directory: Path, package: ServingPackage, environments: Path) -> Program:
        """The program for `package` in `directory`; its environment lies below `environments`."""


class Runtime(Protocol):
    """Loads packages of one kind. Importing the module that holds it must not import its library."""

    name: str

    def load(self, directory: Path, package: ServingPackage, options: LoadOptions) -> LoadedModel:
        """The model of `package` in `directory`; `MissingExtra` when the library is not installed."""
