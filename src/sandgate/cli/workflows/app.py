"""The commands of ``sandgate workflow``, in the order in which they are used."""

from sandgate.cli.groups import command_group
from sandgate.cli.workflows import decision_commands, definition_commands, run_commands

app = command_group("Workflows and their runs. They are on a server; log in first.")

app.command("validate")(definition_commands.validate)
app.command("create")(definition_commands.create)
app.command("update")(definition_commands.update)
app.command("get")(definition_commands.get)
app.command("list")(definition_commands.list_workflows)
app.command("delete")(definition_commands.delete)
app.command("start")(run_commands.start)
app.command("status")(run_commands.status)
app.command("logs")(run_commands.logs)
app.command("runs")(run_commands.list_runs)
app.command("approve")(decision_commands.approve)
app.command("reject")(decision_commands.reject)
app.command("cancel")(decision_commands.cancel)
app.command("retry")(decision_commands.retry)
