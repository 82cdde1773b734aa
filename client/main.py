"""The ``salun`` command."""

import typer

from client.commands import (
    audit_events,
    audits,
    datasets,
    decisions,
    keys,
    local,
    models,
    pulling,
    requests,
)

app = typer.Typer(
    name="salun",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(local.up)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(local.demo)
app.add_typer(keys.app, name="keys")
app.add_typer(datasets.app, name="datasets")
app.add_typer(models.app, name="models")
app.command()(requests.forget)
app.command()(requests.status)
app.command()(requests.watch)
app.command()(requests.report)
app.command()(decisions.approve)
app.command()(decisions.deny)
app.command()(decisions.extend)
app.command()(decisions.withdraw)
app.command()(audits.audit)
app.command("audits")(audits.list_audits)
app.command("audit-events")(audit_events.list_events)
app.command("pull")(pulling.pull_model)
app.command("deployments")(pulling.list_deployments)


@app.callback()
def salun() -> None:
    """Make trained models forget: submit, watch and pull over the salun service.

    The usual order is: `salun up`, `salun datasets push`, `salun models push`, `salun forget`,
    `salun watch`, `salun report`, `salun pull`; `salun audit` looks closer at what came out, and
    `salun audit-events` tells who did what.
    """


if __name__ == "__main__":
    app()
