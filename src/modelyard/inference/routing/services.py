"""One service as this server answers for it: its goal, what answers now, and its bounds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from modelyard.domain.errors.base import ModelyardError, quote
from modelyard.domain.errors.inference import DeadlineExceeded, NotReady, Overloaded, RunFailed, VersionNotFound
from modelyard.domain.errors.platform import RateLimited, RatePolicy
from modelyard.domain.routing import Backend, ServiceRoute
from modelyard.domain.upstreams import UpstreamProtocol
from modelyard.inference.admission import Allowance, Gate, Hold, Room, SharedLimits, TokenBucket, read_urgency
from modelyard.inference.batching import Call
from modelyard.inference.routing.backends import BackendKey, BackendState, ServedBackend
from modelyard.inference.routing.caching import CachedChoice, KeptAnswers
from modelyard.inference.routing.choosing import Callers, Coin, Fields, Identify, Matches
from modelyard.inference.routing.comparison import Comparison
from modelyard.inference.routing.measures import ServiceMeasures
from modelyard.inference.routing.shadowing import Mirror
from modelyard.inference.routing.split import Split
from modelyard.inference.routing.workers import WorkerDied, WorkerFailed


class Service:
    """Lives as long as its name stands in the table; keeps its identity from table to table.

    `goal` is the newest route, `split` what answers now: the two differ while new backends load.
    """

    def __init__(
        self, route: ServiceRoute, measures: ServiceMeasures, *, bound: int, deadline_s: float, identify: Identify
    ) -> None:
        self.project = route.project
        self.name = route.name
        self.goal = route
        self.unloaded: tuple[Backend, ...] = ()
        """What would answer, were the service loaded; empty when it is."""
        self.measures = measures
        self.split: Split[ServedBackend] | Coin[ServedBackend] = Split([])
        self.choose: Callable[[Fields], ServedBackend] = self._by_weight
        """Who answers a request with these header fields (names in lower case); raises `NotReady`."""
        self.comparison = Comparison()
        self.mirror: Mirror | None = None
        self.backends: dict[BackendKey, ServedBackend] = {}
        self.in_flight = 0
        self.deadline_s = deadline_s
        self._identify = identify
        self._rules: tuple[object, ...] = ()
        self._kept: KeptAnswers | None = None
        self._most = bound
        self._bound = bound
        self._low = bound
        self._room = Room.of(bound)
        self._default_deadline_s = deadline_s
        self._bucket: TokenBucket | None = None
        self._gate: Gate | None = None

    def aim(self, route: ServiceRoute) -> None:
        """Make `route` the goal; that of a service which is not to be loaded holds nothing."""
        self.goal = route if route.loaded else replace(route, backends=())
        self.unloaded = () if route.loaded else route.backends

    @property
    def is_relayed(self) -> bool:
        """Whether it speaks the OpenAI dialect, and no tensors."""
        return any(is_openai(backend) for backend in (*self.goal.backends, *self.unloaded))

    @property
    def has_no_worker(self) -> bool:
        """Whether what answers runs in isolated workers, and there is none now."""
        pools = [backend.workers for backend in self.split.items]
        return bool(pools) and all(pool is not None and not pool.hellos for pool in pools)

    def latency_counts(self) -> list[float]:
        """Predictions so far by the bucket of their time, in the order of `LATENCY_BOUNDS` and one beyond."""
        columns = [backend.measures.latency_counts() for backend in self.backends.values()]
        return [sum(column) for column in zip(*columns, strict=True)]

    def limit(self, limits: SharedLimits) -> None:
        """Take the goal's limits into effect."""
        wish, name = self.goal.limits, f"{self.project}/{self.name}"
        deadline_ms = wish.deadline_ms
        self.deadline_s = self._default_deadline_s if deadline_ms is None else deadline_ms / 1000
        self.measures.pressure.limit(most=self._most, deadline_s=self.deadline_s, on_change=self._take_room)
        rate = wish.requests_per_s
        self._bucket = None if rate is None else limits.bucket(name, rate)
        if wish.max_in_flight is None:
            self._gate = None
        elif self._gate is None or self._gate.bound != wish.max_in_flight:
            self._gate = limits.gate(name, wish.max_in_flight)

    def _take_room(self, room: Room) -> None:
        self._room, self._low, self._bound = room, room.low, room.usual

    def _shed(self, fields: Mapping[bytes, bytes] | None) -> None:
        """Refuse a request that would not be answered in time, the least urgent first."""
        if self.in_flight >= self._room.for_urgency(read_urgency(fields)):
            raise Overloaded(
                f"{self.in_flight} requests of this service are waiting already",
                hint="send fewer at once; Retry-After says when there will be room",
                retry_after_s=max(1.0, self.measures.pressure.wait_s),
            )

    def enter(
        self, allowance: Allowance | None = None, fields: Mapping[bytes, bytes] | None = None
    ) -> "Gate | Hold | None":
        """Count one request in; gives what `answered` or `leave` is to be called with. `fields` are its headers.

        Raises:
            Overloaded: too many requests are in flight.
            RateLimited: more requests than the service's rate, or than the caller's `allowance`.
        """
        if self.in_flight >= self._low:  # before the caller's allowance is touched: refusing has to be cheap
            self._shed(fields)
        if allowance is None:
            return self._enter()
        hold = allowance.enter()
        try:
            hold.service_gate = self._enter()
        except ModelyardError:
            hold.leave()
            raise
        return hold

    def _enter(self) -> Gate | None:
        if self._bucket is not None and (wait := self._bucket.take()):
            raise RateLimited(
                f"this service takes {self._bucket.rate:g} requests a second",
                retry_after_s=wait,
                hint="wait as long as Retry-After says",
                policy=RatePolicy("service", max(1, int(self._bucket.rate)), 1),
            )
        gate = self._gate
        if gate is not None and not gate.enter():
            raise Overloaded(
                f"this service takes {gate.bound} requests at once", hint="wait as long as Retry-After says"
            )
        self.in_flight += 1
        return gate

    @property
    def only(self) -> ServedBackend | None:
        """The one backend that answers, where nothing but the body counts, and nothing is copied or compared."""
        if self.mirror is not None or self.choose != self._by_weight or not isinstance(self.split, Split):
            return None
        return self.split.only

    def enter_many(self, count: int) -> "Entry | None":
        """Count `count` requests in at once; None, and none counted, when there is not plainly room for all.

        They are then to be counted in by `enter`, one by one, which says what stands in the way of each.
        """
        bucket, gate = self._bucket, self._gate
        if self.in_flight + count > self._low or (bucket is not None and not bucket.take_many(count)):
            return None
        if gate is not None and not gate.enter_many(count):
            if bucket is not None:
                bucket.give_back(count)
            return None
        self.in_flight += count
        return Entry(self, bucket, gate)

    def leave(self, gate: "Gate | Hold | None") -> None:
        """Count one request out that got no prediction."""
        self.in_flight -= 1
        if gate is not None:
            gate.leave()

    def answered(self, gate: "Gate | Hold | None") -> None:
        """Count one request out that gets its prediction."""
        self.in_flight -= 1
        if gate is not None:
            gate.settle()

    def book_failure(self, error: ModelyardError, call: Call | None = None) -> None:
        """Count how a request that was admitted ended without a prediction; against its revision, if that spoilt it."""
        if call is not None:
            self.comparison.failed(error, call)
        if isinstance(error, DeadlineExceeded):
            self.measures.lost("timeout", error.code)
        elif isinstance(error.__cause__, WorkerDied):
            self.measures.lost("worker_died", error.code)
        elif isinstance(error, RunFailed) or isinstance(error.__cause__, WorkerFailed):
            self.measures.answered_with(error.code)
        else:
            self.measures.rejected(error.code)

    def settle(self) -> bool:
        """Send traffic where the goal says, as far as that is ready; whether everything of the goal is decided.

        While a backend with weight still loads, the former split goes on. Backends that failed get no traffic; when all
        of them did, the former split stays as well.
        """
        weighted = [(self.backends[BackendKey.of(self.goal, b)], b.weight) for b in self.goal.backends if b.weight > 0]
        if any(backend.state is BackendState.LOADING for backend, _ in weighted):
            if not self.split.items:
                self._arrange([(b, w) for b, w in weighted if b.state is BackendState.READY])
            return False
        ready = [(backend, weight) for backend, weight in weighted if backend.state is BackendState.READY]
        if ready or not weighted:
            self._arrange(ready)
        return all(
            self.backends[BackendKey.of(self.goal, b)].state is not BackendState.LOADING for b in self.goal.backends
        )

    def _arrange(self, choices: Sequence[tuple[ServedBackend, int]]) -> None:
        """Let the requests be divided between these. What the goal does not ask for costs a request nothing."""
        goal = self.goal
        self._copy(choices)
        rules = (tuple(choices), goal.matches, goal.sticky, goal.watched, goal.cache, tuple(self.live))
        if rules == self._rules:
            return
        self._rules = rules
        self._divide(choices)
        if goal.cache is None or goal.watched:  # while revisions are compared, every answer is the model's own
            self._kept = None
            return
        if self._kept is None or self._kept.wish != goal.cache:
            self._kept = KeptAnswers(goal.cache)
        self.choose = CachedChoice(self.choose, self._kept, lambda given: self._identify(given).project)

    def _divide(self, choices: Sequence[tuple[ServedBackend, int]]) -> None:
        goal = self.goal
        self.split = Coin(choices) if goal.watched else Split(choices)
        if goal.watched:
            self.comparison.begin(choices)
        else:
            self.comparison.end()
        if not (goal.matches or (goal.sticky and len(choices) > 1)):
            self.choose = self._by_weight
            return
        held = {backend.key.revision: backend for backend in self.live}
        matches = Matches(goal.matches, held, self._identify)
        callers = Callers(goal.sticky or "", choices, salt=f"{self.project}/{self.name}")

        def choose(fields: Fields) -> ServedBackend:
            return matches.pick(fields) or (callers.pick(fields) if goal.sticky else None) or self.pick()

        self.choose = choose

    def _copy(self, choices: Sequence[tuple[ServedBackend, int]]) -> None:
        """Let the shadow that the goal names, once it is ready, have copies of what these answer."""
        found = [self.backends[BackendKey.of(self.goal, each)] for each in self.goal.backends if each.shadow_percent]
        shadow = next((each for each in found if each.state is BackendState.READY and each.runner is not None), None)
        if shadow is None:
            self.mirror = None
        elif self.mirror is None or (self.mirror.shadow, self.mirror.percent) != (
            shadow,
            shadow.backend.shadow_percent,
        ):
            self.mirror = Mirror(shadow)
        for backend in self.backends.values():
            copied = any(backend is each for each, _ in choices) and backend is not shadow
            backend.copy_to(self.mirror if copied else None)

    def retired(self) -> list[ServedBackend]:
        """Backends that neither the goal nor the present split names."""
        named = {BackendKey.of(self.goal, backend) for backend in self.goal.backends}
        active = self.split.items
        return [backend for key, backend in self.backends.items() if key not in named and backend not in active]

    @property
    def live(self) -> list[ServedBackend]:
        """Every backend that can answer now, those of weight 0 included; shadows never answer anybody."""
        return [
            backend
            for backend in self.backends.values()
            if backend.state is BackendState.READY and not backend.backend.shadow_percent
        ]

    def pick(self) -> ServedBackend:
        """The backend for the next request.

        Raises:
            NotReady: nothing is loaded yet; the text says why.
        """
        backend = self.split.pick()
        if backend is None or (backend.signature is None and backend.client is None):
            raise self._not_ready()
        return backend

    def _by_weight(self, fields: Fields) -> ServedBackend:
        return self.pick()

    def at_version(self, version: str) -> ServedBackend:
        """The live backend of this model version, the newest revision first.

        Raises:
            VersionNotFound: no live revision holds it.
        """
        held = [
            backend
            for backend in self.backends.values()
            if backend.backend.version == version and not backend.backend.shadow_percent
        ]
        if not held and any(backend.version == version for backend in self.unloaded):
            raise self._not_ready()
        if not held:
            raise VersionNotFound(
                "no live revision of this service has that version",
                hint="leave the version out",
                details=[{"field": "version", "expected": self._versions(), "received": quote(version)}],
            )
        ready = [backend for backend in held if backend.state is BackendState.READY]
        if not ready:
            raise self._not_ready()
        found = max(ready, key=lambda backend: backend.key.revision)
        return found.aside() if found.sketch is not None else found

    def _versions(self) -> list[str]:
        return sorted({backend.backend.version for backend in self.live})

    def _not_ready(self) -> NotReady:
        if self.unloaded:
            return NotReady("the model is not loaded", hint=f"POST /v2/repository/models/{self.name}/load loads it")
        reasons = [backend.reason for backend in self.backends.values() if backend.reason]
        return NotReady(reasons[0] if reasons else "the model is being loaded", hint="try again in a moment")


class Entry:
    """Requests that `Service.enter_many` let in."""

    __slots__ = ("_bucket", "_gate", "_service")

    def __init__(self, service: Service, bucket: TokenBucket | None, gate: Gate | None) -> None:
        self._service = service
        self._bucket = bucket
        self._gate = gate

    def leave(self, count: int) -> None:
        """Count so many out, with a prediction or without."""
        self._service.in_flight -= count
        if self._gate is not None:
            self._gate.leave(count)

    def take_back(self, count: int) -> None:
        """So many, let in just now, are to ask by themselves."""
        if self._bucket is not None:
            self._bucket.give_back(count)
        self.leave(count)


def is_openai(backend: Backend) -> bool:
    """Whether a server elsewhere answers for it in the OpenAI dialect."""
    return backend.upstream is not None and backend.upstream.protocol is UpstreamProtocol.OPENAI
