"""HTTP/1.1 to servers elsewhere: kept-alive connections to one origin, bounded in number, size and time.

    pool = Pool(origin, OutboundRules(allow_private=True))
    async with pool.ask(Question("POST", "/infer", headers, body)) as answer:
        async for part in answer.parts():
            ...

Redirects are not followed, certificates are checked, and a name is resolved, and what it resolves to judged, for every
new connection: it is made to that very address.
"""

from modelyard.foundation.outbound.answer import Answer
from modelyard.foundation.outbound.pool import Pool, Question
from modelyard.foundation.outbound.reaching import OutboundRules, resolve

__all__ = ["Answer", "OutboundRules", "Pool", "Question", "resolve"]
