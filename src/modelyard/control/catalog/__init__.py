"""Catalog: the model library. Models, their immutable versions, aliases, tags, and who may see them.

Intake calls `register_version(tx, NewVersion(...))`; deployments call `resolve(tx, project, name, ...)` and find the
serving package with `package_directory(places.packages, version)`.
"""

from modelyard.control.catalog.documents import version_document
from modelyard.control.catalog.library import set_alias
from modelyard.control.catalog.lookup import (
    CHAMPION,
    find_by_source,
    find_model,
    find_version,
    package_directory,
    resolve,
)
from modelyard.control.catalog.registration import register_version
from modelyard.control.catalog.removal import Removals, StoredNames, VersionUsers, stored_names
from modelyard.control.catalog.search import index_copy
from modelyard.control.catalog.values import ModelRecord, NewVersion, Resolved, StoredFile, VersionRecord

__all__ = [
    "CHAMPION",
    "ModelRecord",
    "NewVersion",
    "Removals",
    "Resolved",
    "StoredFile",
    "StoredNames",
    "VersionRecord",
    "VersionUsers",
    "find_by_source",
    "find_model",
    "find_version",
    "index_copy",
    "package_directory",
    "register_version",
    "resolve",
    "set_alias",
    "stored_names",
    "version_document",
]
