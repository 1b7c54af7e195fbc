"""How long a command may wait for others: until shortly before Kubernetes ends the Job, so that there is an answer."""

import time
from dataclasses import dataclass
from random import SystemRandom

# activeDeadlineSeconds of a Job when nothing is said, and what is kept back to write the report.
DEFAULT_SECONDS = 900.0
RESERVE_SHARE = 0.1
RESERVE_SECONDS = 30.0
PAUSE_LIMIT = 15.0

_random = SystemRandom()


@dataclass(frozen=True)
class Deadline:
    """A point in time on the monotonic clock."""

    at: float

    @classmethod
    def of_job(cls, seconds: float) -> "Deadline":
        """Gives the end of waiting for a Job that is ended after this many seconds."""
        return cls(time.monotonic() + seconds - min(RESERVE_SECONDS, seconds * RESERVE_SHARE))

    @classmethod
    def in_seconds(cls, seconds: float) -> "Deadline":
        """Gives the end of waiting that begins now."""
        return cls(time.monotonic() + seconds)

    @property
    def remaining(self) -> float:
        """Seconds that are left, 0 when it has passed."""
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether there is no time left."""
        return self.remaining == 0

    def pause(self, attempt: int, first: float = 0.1) -> None:
        """Sleeps before the next attempt: longer each time, and jittered, for many may wait for one server."""
        ceiling = min(PAUSE_LIMIT, first * 2 ** min(attempt, 16))
        time.sleep(min(self.remaining, _random.uniform(ceiling / 2, ceiling)))
