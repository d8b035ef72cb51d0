"""The only privileged program: namespaces, control groups, mounts and kills, for a handful of verbs.

It knows no users, no HTTP and no SQL, and never follows a path that a sandbox can change. It can be read whole in
an hour; start with ``server``.
"""
