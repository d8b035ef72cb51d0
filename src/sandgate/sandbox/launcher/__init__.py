"""The only privileged program: namespaces, cgroups, mounts, kill."""
