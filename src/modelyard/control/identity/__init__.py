"""Identity: keys, projects, who is asking, and the one place where it is decided who may see and do what.

In a route: `who = caller(request)`, then `require(who, Verb.DEPLOY, project=project, name=name)` before any change, and
`visible(reach_of(who), project=table.c.project, name=table.c.name)` in the condition of every listing.
"""

from modelyard.control.identity.authentication import Authenticator
from modelyard.control.identity.bootstrap import offer_bootstrap, remove_token_file, trade_token
from modelyard.control.identity.issuers import IssuerBook
from modelyard.control.identity.journal import Journal, JournalBook
from modelyard.control.identity.keys import (
    NewKey,
    StoredKey,
    create_key,
    find_key,
    has_administrator,
    list_keys,
    published_keys,
    revoke_key,
)
from modelyard.control.identity.principal import LOCAL, Actor, Principal, caller, system_actor
from modelyard.control.identity.projects import (
    Project,
    change_project,
    create_project,
    find_project,
    list_projects,
    published_quotas,
)
from modelyard.control.identity.secrets import (
    SecretStore,
    StoredSecret,
    published_secrets,
    require_secrets,
)
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
    "Authenticator",
    "IssuerBook",
    "Journal",
    "JournalBook",
    "NewKey",
    "Principal",
    "Project",
    "Reach",
    "SecretStore",
    "StoredKey",
    "StoredSecret",
    "Visibility",
    "caller",
    "can_see",
    "change_project",
    "create_key",
    "create_project",
    "find_key",
    "find_project",
    "has_administrator",
    "lacks",
    "list_keys",
    "list_projects",
    "missing",
    "offer_bootstrap",
    "published_keys",
    "published_quotas",
    "published_secrets",
    "reach_of",
    "remove_token_file",
    "require",
    "require_everywhere",
    "require_secrets",
    "revoke_key",
    "system_actor",
    "trade_token",
    "visible",
]
