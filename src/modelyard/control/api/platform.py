"""What this platform is set to and what it can be extended with. Shows no secret."""

from importlib.metadata import distributions
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from modelyard.control.identity import caller, require_everywhere
from modelyard.control.records import parts_of
from modelyard.domain.access import Verb
from modelyard.foundation.settings import describe, shown
from modelyard.version import __version__

router = APIRouter(tags=["platform"])
_GROUP = "modelyard."


class SettingDocument(BaseModel):
    """One setting."""

    name: str = Field(description="`group.field`.")
    value: Any = Field(description="In force now.")
    default: Any = Field(description="In force when nobody says otherwise.")
    unit: str
    range: str
    variable: str = Field(description="The environment variable that sets it.")
    text: str


class SettingsDocument(BaseModel):
    """All settings."""

    version: str
    auth: str = Field(description="open or required.")
    settings: list[SettingDocument]


class PluginDocument(BaseModel):
    """An extension that another package brings."""

    group: str
    name: str
    package: str
    version: str


class PluginsDocument(BaseModel):
    """All extensions."""

    items: list[PluginDocument]


@router.get("/settings", summary="The settings in force", response_model=SettingsDocument)
def settings(request: Request) -> dict[str, Any]:
    """Every setting with its value, default, unit and range. Passwords in addresses are left out."""
    require_everywhere(caller(request), Verb.ADMIN)
    parts = parts_of(request)
    values = shown(parts.settings)
    return {
        "version": __version__,
        "auth": "required" if parts.auth_required else "open",
        "settings": [
            {
                "name": f"{item.group}.{item.name}",
                "value": values[item.group][item.name],
                "default": item.default,
                "unit": item.about.unit,
                "range": item.about.range_text,
                "variable": item.variable,
                "text": item.about.text,
            }
            for item in describe()
        ],
    }


@router.get("/plugins", summary="The extensions that are installed", response_model=PluginsDocument)
def plugins() -> dict[str, Any]:
    """Entry points in our groups, by group and name; none of them is imported for this."""
    items = [
        {"group": point.group, "name": point.name, "package": package.name, "version": package.version}
        for package in distributions()
        for point in package.entry_points
        if point.group.startswith(_GROUP)
    ]
    return {"items": sorted(items, key=lambda item: (item["group"], item["name"]))}
