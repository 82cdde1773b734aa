"""What the supervisor tells the console: one line an event, for people or as JSON."""

import contextlib
import json

import rich.console

_SENTENCES = {
    "started": "[green]✓[/] {name} started ({run_seconds:.1f} s)",
    "done": "[green]✓[/] {name} done ({run_seconds:.1f} s)",
    "ready": "[bold green]ready[/] at {url}   admin key in {key_file}   Ctrl-C stops everything",
    "died": "[red]✗[/] {name} {reason}; starting it again{after}   log: {log}",
    "restarted": "[green]✓[/] {name} is back (pid {pid})",
    "trouble": "[red]✗[/] {name}: {message}",
    "failed": "[bold red]error[/] {message}",
    "stopping": "stopping everything …",
    "stopped": "stopped",
}


class Reporter:
    """Prints events; a console that went away never disturbs the supervision."""

    def __init__(self, *, as_json: bool) -> None:
        """Print JSON lines if ``as_json``, else sentences."""
        self._as_json = as_json
        self._console = rich.console.Console(highlight=False, soft_wrap=True)

    def say(self, event: str, **fields: object) -> None:
        """Print one event."""
        with contextlib.suppress(OSError):
            if self._as_json:
                self._console.file.write(json.dumps({"event": event, **fields}) + "\n")
                self._console.file.flush()
            else:
                self._console.print(_sentence(event, fields))


def _sentence(event: str, fields: dict[str, object]) -> str:
    pause = fields.get("pause_seconds")
    after = f" in {pause:.1f} s" if isinstance(pause, float) and pause > 0 else ""
    safe = {name: _escape(value) for name, value in fields.items()}
    return _SENTENCES[event].format(**safe, after=after)


def _escape(value: object) -> object:
    return value.replace("[", r"\[") if isinstance(value, str) else value
