"""Bodies of the upload routes."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from modelyard.domain.names import NAME_PATTERN

NAME: Final = f"^{NAME_PATTERN}$"
Name = Annotated[str, Field(pattern=NAME, max_length=63)]


class AnnouncedFile(BaseModel):
    """A file of a resumable upload, in the order in which its bytes will come."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=512, description="The file's name, as it is to stand in the bundle.")
    size: int = Field(ge=0, le=1 << 50, description="Its length in bytes.")
    sha256: str | None = Field(default=None, pattern="^[0-9a-fA-F]{64}$", description="Checked when it has arrived.")


class NewUpload(BaseModel):
    """A resumable upload."""

    model_config = ConfigDict(extra="forbid")

    model: Name = Field(description="The model that gets a new version.")
    files: list[AnnouncedFile] = Field(min_length=1, max_length=1000)
    version: Name | None = Field(default=None, description="The version's name; without it, the next number.")
    alias: Name | None = Field(default=None, description="An alias to point at the new version.")
