"""Decide the health of workers, and which of them to replace.

Nothing in this module probes, waits or kills: one round of observations goes in, a verdict on every worker comes out.
It requests a replacement in every round while the trouble lasts, because a request can get lost; circusd drops those
that are under way. It may refuse one, see `supervisor/replace/admission.py`; then another sick worker is next.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

from xboard_circus.core.durations import seconds
from xboard_circus.core.reason import one_line
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_names import Health

_LABELS = {Health.SICK: Say.SICK, Health.HUNG: Say.HUNG}

PAUSE = 3
"""Times `failure_threshold`: the rounds between two replacements while at least half of the workers hang."""

SECOND_LOOK, STOPPED_FOR, SHOWS_WITHIN, BLOCKED_FOR = 0.3, 0.25, 0.75, 1.0
"""Seconds that a probe runs before its silence means anything; that a signal has stopped a process; within which a
worker whose loop is late shows something, if its threads run; that an event loop is blocked at least."""

Worker = tuple[int, int]
"""A process: pid and start time. The pid alone may be another process's by the next round."""

Slots = Mapping[Worker, int]
"""The slots of workers that are up. A hung one and its successor, which hangs too, are one slot: a client has sent
anew the request that blocks it."""

NO_SLOTS: Slots = {}


@dataclass(frozen=True, kw_only=True)
class HealthRules:
    """When a worker's health counts as changed: options of ``health.*``.

    Attributes:
        failure_threshold: This many failed checks in a row make a worker hung or sick.
        success_threshold: This many good ones in a row make it well again.
        max_unavailable: At most this many sick ones are replaced at once. Hung ones serve nothing and do not wait,
            unless at least half of the workers hang together.
    """

    failure_threshold: int = 3
    success_threshold: int = 1
    max_unavailable: int = 1

    def __post_init__(self) -> None:
        for rule in fields(self):
            if (value := getattr(self, rule.name)) < 1:
                raise ValueError(f"{rule.name} must be at least 1, not {value:g}")


class Observation(NamedTuple):
    """Observation of one worker by one probe.

    Attributes:
        answered: Its event loop answered in time.
        starting: It reports that it is starting or draining, so its health is not judged.
        live: Result of its live path; None where none is configured or none was requested.
        ready: The same of its ready path.
        pool_full: Every thread of its pool is in use, so a live path that needs one proves nothing.
        files_full: The limit of open files, where connections have used them all; a live path may need one more.
        reason: What went wrong, in words.
        beats: For a worker that did not answer: its count of progress at the begin and the end of the probe; None:
            unknown.
        is_stopped: A signal such as SIGSTOP has stopped its process, which can make no progress.
    """

    answered: bool
    starting: bool = False
    live: bool | None = None
    ready: bool | None = None
    pool_full: bool = False
    files_full: int = 0
    reason: str = ""
    beats: tuple[int, int] | None = None
    is_stopped: bool = False

    @property
    def fails_live(self) -> bool:
        """Return whether the live path of a worker that is up failed by itself, not for lack of a thread or a file."""
        return self.answered and not self.starting and self.live is False and not (self.pool_full or self.files_full)

    @property
    def is_success(self) -> bool:
        """Return whether it counts as a success; an observation that is neither this nor a failure does not count."""
        return self.answered and not self.starting and self.live is not False


class Silence(NamedTuple):
    """What is seen of a worker while it does not answer a probe. Times are in seconds.

    Attributes:
        lasts: Since the probe began.
        stands: For how long its loop has been in one callback, as a thread of the worker shows; 0: in none.
        moves: That thread has shown progress since the probe began; None: nothing can be read.
        stopped: For how long a signal such as SIGSTOP has stopped it.
        computes: Its first thread was on a core and waited for nothing since the first look, as C code that holds the
            GIL; a loop that waits for the answer of a live path turns.
    """

    lasts: float
    stands: float = 0.0
    moves: bool | None = False
    stopped: float = 0.0
    computes: bool = False

    def blocked(self, period: float) -> str:
        """Return why its event loop is taken for blocked; "" if it is not.

        A loop that is late shows progress, or that it stands, within `SHOWS_WITHIN`. Where neither is shown, it is in
        time and its live path waits, or the machine has no core for the worker, or the thread that shows it cannot
        run, because C code holds the GIL: then the worker computes without a pause.

        >>> Silence(lasts=0.5, stands=2.5).blocked(2.0), Silence(lasts=0.5, stands=1.5).blocked(2.0)
        ('event loop blocked for 2.5 s', '')
        """
        if self.lasts < SECOND_LOOK:
            return ""
        if self.stopped >= STOPPED_FOR:
            return Say.STOPPED_BY_SIGNAL()
        if self.stands:
            is_long = self.stands >= max(period, BLOCKED_FOR)
            return Say.LOOP_BLOCKED(age=seconds(round(self.stands, 1))) if is_long else ""
        shows_nothing = self.moves is False and self.computes and self.lasts >= max(period / 2, SHOWS_WITHIN)
        return Say.SHOWS_NOTHING(age=seconds(round(self.lasts, 1))) if shows_nothing else ""


class Replace(NamedTuple):
    """A worker to replace: killed at once if it is hung, with the new one first if it is sick.

    Attributes:
        reason: What was found, without the name of the state.
    """

    worker: Worker
    health: Health
    reason: str


class Event(NamedTuple):
    """News of a worker, or of the whole watcher if *worker* is None."""

    kind: Literal["unhealthy", "recovered"]
    reason: str
    worker: Worker | None = None


class Round(NamedTuple):
    """The verdicts of one round.

    Attributes:
        healths: Health of every observed worker; unknown until it is judged.
        reasons: Reason for every observed worker; "" where all is well.
        not_ready: Workers with a ready path that fails or could not be requested. No action follows, but a rolling
            reload waits.
    """

    healths: dict[Worker, Health]
    reasons: dict[Worker, str]
    not_ready: frozenset[Worker]
    replace: tuple[Replace, ...]
    events: tuple[Event, ...]


Healths = Mapping[Worker, Health]
Observations = Mapping[Worker, Observation]


@dataclass(slots=True)
class _Record:
    """History of one worker's probes.

    Attributes:
        judged: It was ok once, and has not reported since then that it starts or drains.
        beat: Its count of progress at the end of the last probe, if it did not answer that.
        works: It did not answer the last probe, but made progress since the one before, or since this one began.
        late: So many rounds in a row it was so.
        stopped: A signal has stopped it: it waits for nothing else.
    """

    judged: bool = False
    stopped: bool = False
    unanswered: int = 0
    failures: int = 0
    successes: int = 0
    in_trouble: bool = False
    announced: bool = False
    beat: int | None = None
    works: bool = False
    late: int = 0

    def note_progress(self, beats: tuple[int, int] | None) -> None:
        if beats is None:
            self.beat, self.works = None, False
            return
        began, ended = beats
        self.works = ended > (began if self.beat is None else self.beat)
        self.beat = ended

    def forget_counts(self) -> None:
        self.beat = None
        self.unanswered = self.failures = self.successes = 0
        self.in_trouble = False


class WatcherHealth:
    """Decide replacements by failed probes in a row, unless so many workers fail together that a dependency is down.

    *Hung* is a loop that neither answers nor makes progress, or a process that is stopped; *sick* is one that answers
    while the live path fails. A full thread pool is *busy*, and so is a loop that makes progress without answering:
    that is load, and killing under load makes more of it. Counting starts with the first success, because other
    options limit a start. If two workers and at least half of the watcher's fail their live path together, their
    dependency is down. New workers would fail alike, so none is replaced and one event reports it. If that many hang
    together, a dependency may block their event loops (a database that does not answer). They are replaced one at a
    time, with a pause: most get well when it answers again, and a loop that is stuck for good never would. Two kinds
    of hung workers are replaced at once all the same: those that a signal has stopped, because they wait for no
    dependency, and those whose successor is up, because their place is filled.

    Pass every worker of the watcher to every round, also those without an answer: a missing one is forgotten. *rules*
    may be changed at any time.

    >>> health = WatcherHealth(HealthRules(failure_threshold=2))
    >>> well, silent = Observation(answered=True), Observation(answered=False, reason="timed out after 2 s")
    >>> for seen in (well, silent, silent):
    ...     verdict = health.round({(71, 1): seen})
    >>> verdict.replace[0].reason
    'no answer 2 times in a row: timed out after 2 s'
    """

    def __init__(self, rules: HealthRules) -> None:
        self.rules = rules
        self._records: dict[Worker, _Record] = {}
        self._sick: list[Worker] = []
        self._down = self._waits = self._down_announced = self._hang_together = self._hang_announced = False
        self._failed_together: list[Worker] = []
        self._silent_of = 0, 0
        self._tried: Worker | None = None
        self._pause = 0

    def round(self, observations: Observations, *, up: Slots = NO_SLOTS) -> Round:
        """Judge one round of observations, one for each worker of the watcher.

        *up* are the workers that circusd knows as up: each was well once, so their failures count from the first round
        on.
        """
        self._records = {worker: self._records.get(worker, _Record()) for worker in observations}
        for worker, seen in observations.items():
            self._count(self._records[worker], seen, is_up=worker in up)
        healths = {worker: self._health(self._records[worker], seen) for worker, seen in observations.items()}
        found = {worker: self._found(worker, healths[worker], seen) for worker, seen in observations.items()}
        reasons = {worker: _labelled(healths[worker], why) for worker, why in found.items()}
        self._note_sick(healths)
        failing = self._failing(observations)
        are_many = len(failing) >= 2 and 2 * len(failing) >= len(observations)
        was_down, self._down = self._down, are_many and (self._down or bool(self._sick))
        # The dependency may come back in the middle of a round, so that only some of them see it.
        heals = any(observations[w].is_success for w in self._failed_together if w in observations)
        self._waits = not self._down and (was_down or heals)
        self._failed_together = failing if are_many else []
        return Round(
            healths=healths,
            reasons=reasons,
            not_ready=frozenset(w for w, seen in observations.items() if seen.ready is False or not seen.answered),
            replace=tuple(Replace(worker, healths[worker], found[worker]) for worker in self._to_replace(healths, up)),
            events=(
                *self._announce_down(observations, failing),
                *self._announce_hang(healths),
                *self._announce_workers(healths, reasons, observations),
            ),
        )

    def ahead(self, worker: Worker, silent: Mapping[Worker, Silence], *, period: float, up: Slots) -> str:
        """Return why a worker gets a successor before it is known to hang; "" if it does not.

        *silent* are those that have not answered the probe that runs. None gets one while at least half of the workers
        are silent and show no progress: what blocks them all would block the successor too.
        """
        record = self._records.get(worker, _Record())
        if self._hang_together or worker not in up or record.unanswered >= self.rules.failure_threshold:
            return ""
        if why := silent[worker].blocked(period):
            still = {up[w] for w, seen in silent.items() if w in up and not (seen.moves or seen.stopped >= STOPPED_FOR)}
            return "" if len(still) >= 2 and 2 * len(still) >= len({*up.values()}) else why
        return ""

    def let_others_go_first(self, worker: Worker) -> None:
        """Put a sick worker behind the others after its replacement was refused: its slot may have to wait for minutes.

        Only the first `max_unavailable` of the sick are requested.
        """
        if worker in self._sick:
            self._sick.remove(worker)
            self._sick.append(worker)

    def reset(self) -> None:
        """Forget failures in a row, because the prober was stopped and they are old."""
        for record in self._records.values():
            record.forget_counts()

    def _count(self, record: _Record, seen: Observation, *, is_up: bool) -> None:
        # It was well when it came up, even if this prober has been started since.
        record.judged = record.judged or is_up
        record.stopped = seen.is_stopped
        record.note_progress(seen.beats)
        record.late = record.late + 1 if record.works else 0
        if record.works:
            record.unanswered = record.successes = 0
        elif not seen.answered:
            # Nothing is gained by more probes of a process that is stopped.
            record.unanswered += record.judged * (self.rules.failure_threshold if seen.is_stopped else 1)
            record.successes = 0
        elif seen.starting:
            record.forget_counts()
            record.judged = False
        else:
            record.unanswered = 0
            self._count_live(record, seen)
        if max(record.unanswered, record.failures) >= self.rules.failure_threshold:
            record.in_trouble = True

    def _count_live(self, record: _Record, seen: Observation) -> None:
        if seen.is_success:
            record.judged = True
            record.failures = 0
            record.successes += 1
            if record.successes >= self.rules.success_threshold:
                record.in_trouble = False
        elif seen.fails_live:
            record.failures += record.judged
            record.successes = 0

    def _health(self, record: _Record, seen: Observation) -> Health:
        if record.unanswered >= self.rules.failure_threshold:
            return Health.HUNG
        if not record.judged:
            return Health.UNKNOWN
        if record.works or (seen.answered and seen.pool_full):
            return Health.BUSY
        if record.in_trouble and not seen.files_full:
            return Health.SICK
        return Health.FAILING if record.unanswered or record.failures or seen.files_full else Health.OK

    def _found(self, worker: Worker, health: Health, seen: Observation) -> str:
        record = self._records[worker]
        if health is Health.UNKNOWN:
            why = ""
        elif record.works:
            why = Say.FOUND_OVERLOADED()
        elif not seen.answered and not seen.is_stopped:
            why = Say.FOUND_SILENCE(times=_times(record.unanswered))
        elif seen.pool_full:
            why = Say.FOUND_POOL_FULL()
        elif seen.files_full:
            why = Say.FOUND_FILES_FULL(n=seen.files_full)
        elif seen.fails_live:
            why = Say.FOUND_LIVE_FAILED(times=_times(record.failures))
        elif health is Health.SICK:
            why = Say.FOUND_HEALING(times=_times(record.successes), n=self.rules.success_threshold)
        else:
            why = Say.FOUND_NOT_READY() if seen.ready is False else ""
        return one_line(Say.FOUND(found=why, why=seen.reason) if why and seen.reason else why or seen.reason)

    def _note_sick(self, healths: Healths) -> None:
        """Keep the sick workers in order of falling sick, so that each round requests the same ones first."""
        sick = [worker for worker, health in healths.items() if health is Health.SICK]
        self._sick = [worker for worker in self._sick if worker in sick]
        self._sick += [worker for worker in sick if worker not in self._sick]

    def _failing(self, observations: Observations) -> list[Worker]:
        # Workers that were never well count here too: a replacement that fails alike is the best proof.
        return [worker for worker, seen in observations.items() if seen.fails_live or worker in self._sick]

    def _to_replace(self, healths: Healths, up: Slots) -> list[Worker]:
        sick = [] if self._down or self._waits else self._sick[: self.rules.max_unavailable]
        hung = [each for each, health in healths.items() if health is Health.HUNG and (each in up or not up)]
        return self._hung_to_replace(hung, up) + sick

    def _hung_to_replace(self, hung: list[Worker], up: Slots) -> list[Worker]:
        judged = {w: record for w, record in self._records.items() if record.judged and (w in up or not up)}
        # The last worker of each slot, which fills its place.
        newest = {up.get(worker, worker): worker for worker in sorted(judged, key=lambda worker: worker[1])}
        silent = {up.get(w, w) for w, record in judged.items() if record.unanswered and not record.stopped}
        self._silent_of = len(silent), len(newest)
        most_are = bool(silent) and 2 * len(silent) >= len(newest)
        self._hang_together = most_are and (self._hang_together or len(silent) >= 2)
        if not self._hang_together:
            self._tried, self._pause = None, 0
            return hung
        may_come_back = [w for w in hung if w in newest.values() and not self._records[w].stopped]
        at_once = [w for w in hung if w not in may_come_back]
        if self._tried not in may_come_back:
            if self._pause > 0 or not may_come_back:
                self._pause -= self._pause > 0
                return at_once
            self._tried, self._pause = may_come_back[0], PAUSE * self.rules.failure_threshold
        return [*at_once, *(w for w in may_come_back if w == self._tried)]

    def _announce_down(self, observations: Observations, failing: list[Worker]) -> Iterable[Event]:
        if self._down and not (self._down_announced or self._hang_announced):
            self._down_announced = True
            seen = next((observations[worker].reason for worker in failing if observations[worker].reason), "")
            say = Say.DEPENDENCY_DOWN_SAYING if seen else Say.DEPENDENCY_DOWN
            yield Event("unhealthy", one_line(say(n=len(failing), total=len(observations), why=seen)))
        elif self._down_announced and self._all_well(observations):
            self._down_announced = False
            yield Event("recovered", Say.ALL_WELL_AGAIN())

    def _announce_hang(self, healths: Healths) -> Iterable[Event]:
        """Report once that many hang together; the events of the workers report that they are well again."""
        hung = sum(health is Health.HUNG for health in healths.values())
        if self._hang_together and hung and not (self._hang_announced or self._down_announced):
            self._hang_announced = True
            silent, total = self._silent_of
            yield Event("unhealthy", one_line(Say.HANG_TOGETHER(n=silent, total=total)))
        elif self._hang_announced and not self._hang_together:
            self._hang_announced = False
            yield Event("recovered", Say.HANG_OVER())

    def _all_well(self, observations: Observations) -> bool:
        # Draining workers are not judged; they must not delay good news.
        judged = [w for w, seen in observations.items() if self._records[w].judged or seen.fails_live]
        return bool(judged) and all(observations[w].is_success and not self._records[w].in_trouble for w in judged)

    def _announce_workers(
        self, healths: Healths, reasons: Mapping[Worker, str], observations: Observations
    ) -> Iterable[Event]:
        for worker, record in self._records.items():
            # While a dependency is down, its own event covers the sick workers.
            is_late = record.judged and record.late >= self.rules.failure_threshold
            is_news = is_late or healths[worker] is Health.HUNG or (worker in self._sick and not self._down)
            if is_news and not record.announced:
                record.announced = True
                yield Event("unhealthy", reasons[worker], worker)
            elif record.announced and observations[worker].is_success and not record.in_trouble:
                record.announced = False
                yield Event("recovered", Say.WELL_AGAIN(), worker)


def _labelled(health: Health, why: str) -> str:
    label = _LABELS.get(health)
    return one_line(why if label is None else label(why=why))


def _times(count: int) -> str:
    return Say.TIMES_ONCE() if count == 1 else Say.TIMES_MANY(n=count)
