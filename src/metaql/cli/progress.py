"""Progress on stderr: one bar per stage with time left; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from metaql.cli import interrupts

PLAIN_EVERY = 10.0
"""Seconds between two plain lines of one stage."""
_BAR_WIDTH, _TIMES_WIDTH = 16, 23
_FIXED_WIDTH = 1 + 20 + _BAR_WIDTH + 4 + _TIMES_WIDTH + 6
"""Columns of a bar line before its metrics, gaps included."""


class Clock:
    """Elapsed time of one stage and an estimate of what is left, from the speed of this process.

    A resumed stage starts at a share above zero, and the first gain holds compilation: speed counts
    from the first gain on, so an estimate exists once there is a second one.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._start = now()
        self._seen = (self._start, 0.0)
        self._begun: float | None = None
        self._base: tuple[float, float] | None = None

    def update(self, share: float) -> None:
        """Take note of the share done, in [0, 1]."""
        if self.done:
            return
        if self._begun is None:
            self._begun = share
        elif self._base is None and share > self._begun:
            self._base = (self._now(), share)
        self._seen = (self._now(), share)

    @property
    def done(self) -> bool:
        """Whether the stage has ended; its times stand still from then on."""
        return self._seen[1] >= 1.0

    @property
    def elapsed(self) -> float:
        """Seconds since the stage began (until it ended)."""
        return (self._seen[0] if self.done else self._now()) - self._start

    @property
    def left(self) -> float | None:
        """Seconds until the stage ends, counting down between updates; None: not known yet."""
        at, share = self._seen
        if self.done:
            return 0.0
        if self._base is None or share <= self._base[1]:
            return None
        since, base = self._base
        estimate = (at - since) * (1.0 - share) / (share - base)
        return max(0.0, estimate - (self._now() - at))


class Progress:
    """A context that shows stages, the share done and the time left; call it as ``on_progress``.

    Args:
        console: where; None: stderr. A terminal gets bars, anything else a line every `PLAIN_EVERY` seconds.
        now: clock in seconds (tests replace it).

    Example:
        >>> import metaql
        >>> with metaql.Progress() as progress:
        ...     progress("A stage", 1.0, {"figure": 0.5})
    """

    def __init__(
        self, console: Console | None = None, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._console, self._now = console, now
        self._stage: str | None = None
        self._clock = Clock(now)
        self._last_line = -PLAIN_EVERY
        self._bars = _bars(console) if console.is_terminal and not console.quiet else None
        self._task = None

    def __enter__(self) -> Progress:
        """Begin to draw."""
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the finished bars on the screen."""
        if self._bars is not None:
            self._bars.stop()

    def __call__(
        self, stage: str, share: float, metrics: Mapping[str, object] | None = None
    ) -> None:
        """Show that ``share`` (0 to 1) of ``stage`` is done; a new stage name opens a new bar."""
        if stage != self._stage:
            self._open(stage)
        news = not self._clock.done
        self._clock.update(share)
        words = _words(metrics or {})
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=share, metrics=words)
        elif news:
            self._line(share, words)
        interrupts.check()

    def say(self, text: str) -> None:
        """A line above the bars."""
        self._console.print(text, markup=False)

    def _open(self, stage: str) -> None:
        if self._bars is not None and self._task is not None:
            self._clock.update(1.0)
            self._bars.update(self._task, completed=1.0)
        self._stage, self._clock, self._last_line = stage, Clock(self._now), -PLAIN_EVERY
        if self._bars is not None:
            fields = {"clock": self._clock, "metrics": ""}
            self._task = self._bars.add_task(stage, total=1.0, **fields)

    def _line(self, share: float, words: str) -> None:
        now = self._now()
        if share < 1.0 and now - self._last_line < PLAIN_EVERY:
            return
        self._last_line = now
        done = f"{self._stage}: {share:4.0%}  {_times(self._clock)}"
        line = f"{done if share > 0 else self._stage}  {words}"
        self._console.print(line.rstrip(), markup=False)


class _Metrics(ProgressColumn):
    """What fits of the metrics into what the other columns leave of the line."""

    def __init__(self, width: int) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._width = width

    def render(self, task: Task) -> Text:
        text = Text(task.fields["metrics"], style="dim")
        text.truncate(self._width, overflow="ellipsis")
        return text


class _Times(ProgressColumn):
    """Elapsed and left, ticking between updates."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True, width=_TIMES_WIDTH))

    def render(self, task: Task) -> Text:
        return Text(_times(task.fields["clock"]), style="dim")


def _bars(console: Console) -> Bars:
    one_line = Column(no_wrap=True)
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description:<20}", markup=False, table_column=one_line),
        BarColumn(bar_width=_BAR_WIDTH),
        TextColumn("{task.percentage:>3.0f}%", table_column=Column(no_wrap=True)),
        _Times(),
        _Metrics(max(0, console.width - _FIXED_WIDTH)),
    )
    return Bars(*columns, console=console, refresh_per_second=8)


def _times(clock: Clock) -> str:
    if clock.done:
        return f"{duration(clock.elapsed)} in all"
    left = clock.left
    known = "left unknown" if left is None else f"left {duration(left)}"
    return f"{duration(clock.elapsed)} gone, {known}"


def _words(metrics: Mapping[str, object]) -> str:
    return "  ".join(f"{name} {_short(value)}" for name, value in metrics.items())


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """``m:ss``, or ``h:mm:ss`` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
