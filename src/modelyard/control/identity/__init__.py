"""Identity: keys, projects, who is asking, and the one place where it is decided who may see and do what.

In a route: `who = caller(request)`, then `require(who, Verb.DEPLOY, project=project, name=name)` before any change, and
`visible(reach_of(who), project=table.c.project, name=table.c.name)` in the condition of every listing.
"""

from modelyard.control.identity.journal import Journal
from modelyard.control.identity.principal import LOCAL, Actor, Principal, caller, system_actor
from modelyard.control.identity.projects import Project, find_project
from modelyard.control.identity.visibility import (
    Reach,
    Visibility,
    can_see,
    lacks,
    missing,
    reach_of,
    require,
    require_everywhere,
    visible,
)

__all__ = [
    "LOCAL",
    "Actor",
    "Journal",
    "Principal",
    "Project",
    "Reach",
    "Visibility",
    "caller",
    "can_see",
    "find_project",
    "lacks",
    "missing",
    "reach_of",
    "require",
    "require_everywhere",
    "system_actor",
    "visible",
]
