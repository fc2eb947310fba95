"""What a person sees on standard error while an evaluation runs."""

import time

from rich.console import Console

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """One line when a stage begins and one every ten seconds while it runs; silent if not ``shown``."""

    def __init__(self, *, shown: bool) -> None:
        self._console = Console(stderr=True, quiet=not shown, soft_wrap=True, highlight=False)
        self._stage, self._total, self._done = "", 0, 0
        self._started = self._last_line = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False)

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of ``total`` units of work."""
        self._stage, self._total, self._done = name, total, 0
        self._started = self._last_line = time.monotonic()

    def advance(self, units: int, figures: str = "") -> None:
        """So much more work is done; ``figures`` is what is known by now."""
        self._done += units
        now = time.monotonic()
        if now - self._last_line < _SECONDS_BETWEEN_LINES or self._done >= self._total:
            return
        self._last_line = now
        left = (now - self._started) / self._done * (self._total - self._done)
        parts = [f"{self._stage}: {self._done:,} of {self._total:,}", figures, f"{_clock(left)} left"]
        self.say(" · ".join(part for part in parts if part))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
