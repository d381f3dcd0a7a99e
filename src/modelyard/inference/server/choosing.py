"""Which way of answering a service gets: the one place to add another (`predict.Predict`)."""

from modelyard.inference.routing import Service
from modelyard.inference.server.held_here import HeldHere
from modelyard.inference.server.predict import Predict


def choose(service: Service) -> Predict:
    """How `service` answers from now on; asked when it comes, and whenever its route (`service.goal`) is another."""
    return HeldHere(service)
