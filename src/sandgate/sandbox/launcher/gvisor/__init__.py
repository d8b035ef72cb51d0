"""Sandboxes of the ``gvisor`` class: a container of ``runsc`` for each, in namespaces of its own without privileges."""
