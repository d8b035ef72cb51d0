"""The commands about environments: ``sandgate environment``, and one for each kind of thing that they have."""

from sandgate.cli.environments import (
    file_commands,
    life_commands,
    port_commands,
    process_commands,
    session_commands,
    snapshot_commands,
    volume_commands,
)
from sandgate.cli.groups import command_group

app = command_group("Environments: places to run code in. They are on a server; log in first.")
app.command("create")(life_commands.create)
app.command("fork")(snapshot_commands.fork)
app.command("list")(life_commands.list_environments)
app.command("get")(life_commands.get)
app.command("update")(life_commands.update)
app.command("pause")(life_commands.pause)
app.command("resume")(life_commands.resume)
app.command("delete")(life_commands.delete)

files = command_group("Files of environments, from and to this machine.")
files.command("ls")(file_commands.list_files)
files.command("get")(file_commands.get)
files.command("put")(file_commands.put)

sessions = command_group("Interpreters that keep what their code makes.")
sessions.command("create")(session_commands.create)
sessions.command("list")(session_commands.list_sessions)
sessions.command("get")(session_commands.get)
sessions.command("interrupt")(session_commands.interrupt)
sessions.command("restart")(session_commands.restart)
sessions.command("delete")(session_commands.delete)

processes = command_group("Commands in the background of environments.")
processes.command("start", context_settings={"allow_interspersed_args": False})(process_commands.start)
processes.command("list")(process_commands.list_processes)
processes.command("get")(process_commands.get)
processes.command("logs")(process_commands.logs)
processes.command("input")(process_commands.give_input)
processes.command("signal")(process_commands.signal)
processes.command("wait")(process_commands.wait)
processes.command("kill")(process_commands.kill)

ports = command_group("Servers that listen in environments.")
ports.command("ask")(port_commands.ask)
ports.command("link")(port_commands.link)

snapshots = command_group("Files of environments, kept to start others from.")
snapshots.command("create")(snapshot_commands.create)
snapshots.command("list")(snapshot_commands.list_snapshots)
snapshots.command("get")(snapshot_commands.get)
snapshots.command("delete")(snapshot_commands.delete)

volumes = command_group("Folders of yours that outlive environments.")
volumes.command("create")(volume_commands.create)
volumes.command("list")(volume_commands.list_volumes)
volumes.command("get")(volume_commands.get)
volumes.command("delete")(volume_commands.delete)
