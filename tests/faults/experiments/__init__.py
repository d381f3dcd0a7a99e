"""One module an area; every module here is loaded, and enters its experiments."""

import importlib
import pkgutil


def load_all() -> None:
    """Import all of them."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
