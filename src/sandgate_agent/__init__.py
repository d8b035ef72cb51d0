"""What runs inside the walls: zygote, keeper, forker and child.

Standard library only, Python 3.8 or newer, and nothing of the host: this folder is shown read-only to the
interpreter of a template. The roles, each a process of its own:

- the *zygote*, one a template: has the template's libraries imported and clones keepers;
- the *keeper*, one an environment, process 1 of it: builds the walls from inside, then makes slots;
- the *forker*, one a slot, process 1 of the slot's own process namespace: forks children, waits for them and
  kills what they leave behind; it never sees code or output, so that no later child can inherit any;
- the *child*, one an execution: waits ready, reads its code from its own socket and runs it.
"""
