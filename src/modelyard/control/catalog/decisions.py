"""Decide over versions: approve, reject, archive, restore, delete. The transition table is `domain/lifecycle`."""

from typing import Final

from sqlalchemy import update

from modelyard.control.catalog.lookup import find_model, find_version
from modelyard.control.catalog.tables import model_versions
from modelyard.control.catalog.values import VersionRecord
from modelyard.control.history import append
from modelyard.control.identity import Principal, find_project, require
from modelyard.control.records import Transaction
from modelyard.domain.access import Verb
from modelyard.domain.errors.platform import Conflict, Forbidden, InvalidRequest
from modelyard.domain.lifecycle import VersionAction, VersionState, move

_VERB: Final = {
    VersionAction.APPROVE: Verb.APPROVE,
    VersionAction.REJECT: Verb.APPROVE,
    VersionAction.ARCHIVE: Verb.DEPLOY,
    VersionAction.RESTORE: Verb.DEPLOY,
    VersionAction.DELETE: Verb.DEPLOY,
}
_PAST: Final = {
    VersionAction.APPROVE: "approved",
    VersionAction.REJECT: "rejected",
    VersionAction.ARCHIVE: "archived",
    VersionAction.RESTORE: "restored",
    VersionAction.DELETE: "deleted",
}
MAX_REASON: Final = 2000


def decide(
    tx: Transaction,
    principal: Principal,
    *,
    version: VersionRecord,
    action: VersionAction,
    reason: str = "",
) -> VersionRecord:
    """Carry out `action`, with its history entry.

    Approving and rejecting need `approve`; the author may not approve their own where the project asks for two. A
    rejection needs a reason. What an alias points at is neither archived nor deleted.

    Raises:
        Conflict: it is not possible from the present state, or an alias points at it.
        Forbidden: the scope is missing, or two people are needed.
        InvalidRequest: a rejection without a reason.
    """
    authorise(principal, version, action)
    after = move(version.state, action)
    _check(tx, principal, version=version, action=action, reason=reason)
    values: dict[str, object] = {"state": after.value, "edition": version.edition + 1}
    if action in (VersionAction.APPROVE, VersionAction.REJECT):
        values |= {"decided_by": principal.name, "decided_at": tx.now, "reason": reason}
    tx.execute(update(model_versions).where(model_versions.c.id == version.id).values(**values))
    append(
        tx,
        actor=principal.actor,
        action=f"model.version_{_PAST[action]}",
        subject=f"model/{version.model}",
        project=version.project,
        payload={
            "model": version.model,
            "version": version.version,
            "digest": version.digest,
            "from": version.state.value,
            "to": after.value,
            "reason": reason,
        },
    )
    if after is VersionState.DELETED:
        return version
    return find_version(tx, find_model(tx, version.project, version.model), version.version)


def authorise(principal: Principal, version: VersionRecord, action: VersionAction) -> None:
    """Let the caller go on to `action`, or raise `NotFound` or `Forbidden`."""
    require(principal, _VERB[action], project=version.project, name=version.model)


def _check(
    tx: Transaction, principal: Principal, *, version: VersionRecord, action: VersionAction, reason: str
) -> None:
    name = f"{version.model}:{version.version}"
    match action:
        case VersionAction.APPROVE:
            own = principal.actor.id == version.author_id
            if own and find_project(tx, version.project).two_person_review:
                raise Forbidden(
                    f"{name} was uploaded with this key, and project {version.project} asks for a second person",
                    hint="somebody else with the scope `approve` has to decide",
                )
        case VersionAction.REJECT:
            if not reason.strip():
                raise InvalidRequest("a rejection needs a reason", hint=f'modelyard reject {name} --reason "…"')
        case VersionAction.ARCHIVE | VersionAction.DELETE:
            if version.aliases:
                raise Conflict(
                    f"{name} is what @{version.aliases[0]} points at",
                    hint=f"point @{version.aliases[0]} at another version, or remove it, first",
                )
        case VersionAction.RESTORE:
            pass
    if len(reason) > MAX_REASON:
        raise InvalidRequest(f"the reason is longer than {MAX_REASON} characters")
