"""Who may see and do what: the one place where that is decided.

Rules. A caller sees a thing when any of its scopes covers the thing's project (and name, where the scope has one), when
the thing is shared with a project that such a scope covers, or when it is public. What a caller does not see does not
exist for it: the answer is the same as for a name that was never used. What it sees and may not change is `Forbidden`.
Sharing and publishing give the right to look and to deploy into one's own project, never to change.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, false, or_, true

from modelyard.control.identity.principal import Principal
from modelyard.domain.access import Verb
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import Forbidden, NotFound


class Visibility(StrEnum):
    """Who sees a model: its project, named projects besides, or every caller."""

    PRIVATE = "private"
    SHARED = "shared"
    PUBLIC = "public"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What a caller's scopes cover: everything, whole projects, and single names as (project, name)."""

    everything: bool
    projects: frozenset[str]
    names: frozenset[tuple[str, str]]

    def covers(self, project: str, name: str | None) -> bool:
        """Whether `name` in `project` is covered; None asks whether anything of the project is."""
        if self.everything or project in self.projects:
            return True
        if name is None:
            return any(owner == project for owner, _ in self.names)
        return (project, name) in self.names

    @property
    def all_projects(self) -> frozenset[str]:
        """Projects of which at least a part is covered; meaningless when `everything` is."""
        return self.projects | {project for project, _ in self.names}


def reach_of(principal: Principal, verb: Verb | None = None) -> Reach:
    """What the scopes with `verb` (None: with any verb) cover."""
    scopes = [scope for scope in principal.scopes if verb is None or scope.verb in (verb, Verb.ADMIN)]
    return Reach(
        everything=any(scope.project is None for scope in scopes),
        projects=frozenset(scope.project for scope in scopes if scope.project and not scope.name),
        names=frozenset((scope.project, scope.name) for scope in scopes if scope.project and scope.name),
    )


def can_see(
    principal: Principal,
    *,
    project: str,
    name: str | None,
    visibility: Visibility = Visibility.PRIVATE,
    shared_with: Collection[str] = (),
) -> bool:
    """Whether this thing exists for the caller."""
    reach = reach_of(principal)
    if visibility is Visibility.PUBLIC or reach.covers(project, name):
        return True
    return visibility is Visibility.SHARED and any(reach.covers(other, None) for other in shared_with)


def require(principal: Principal, verb: Verb, *, project: str, name: str | None = None, what: str = "") -> None:
    """Let the caller do `verb` on `name` in `project`, or refuse.

    `what` names the thing as the caller named it, for the text of the refusal.

    Raises:
        NotFound: the caller sees nothing there.
        Forbidden: it may look, but not do this.
    """
    if principal.may(verb, project=project, name=name):
        return
    if not reach_of(principal).covers(project, name):
        raise missing(what or (f"{quote(name)} in project {quote(project)}" if name else f"project {quote(project)}"))
    raise lacks(verb, project=project, name=name)


def require_everywhere(principal: Principal, verb: Verb) -> None:
    """Let the caller do what concerns the whole platform, or raise `Forbidden`."""
    if not principal.may(verb):
        raise lacks(verb, project=None, name=None)


def missing(what: str) -> NotFound:
    """The one answer for what is not there and for what may not be seen."""
    return NotFound(f"there is no {what}", hint="check the name and ?project=")


def lacks(verb: Verb, *, project: str | None, name: str | None) -> Forbidden:
    """The one answer for a scope that is not there."""
    place = "" if project is None else f":{project}" + (f"/{name}" if name else "")
    return Forbidden(
        f"the key lacks the scope {verb.value}{place}",
        hint=f"modelyard keys create --scope {verb.value}{place} makes one",
    )


def visible(
    reach: Reach, *, project: ColumnElement[str], name: ColumnElement[str] | None = None
) -> ColumnElement[bool]:
    """The condition that leaves the rows a caller's reach covers. Put it in every listing."""
    if reach.everything:
        return true()
    parts: list[ColumnElement[bool]] = []
    if reach.projects:
        parts.append(project.in_(sorted(reach.projects)))
    if name is not None:
        parts.extend(and_(project == owner, name == single) for owner, single in sorted(reach.names))
    return or_(*parts) if parts else false()
