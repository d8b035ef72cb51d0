"""What runs inside the walls: zygote, forker and child.

Standard library only, Python 3.8 or newer, and nothing of the host: this folder is shown read-only to the
interpreter of a template. The roles, each a process of its own:

- the *zygote*, one a template: has the template's libraries imported and clones forkers;
- the *forker*, one a slot, process 1 of the slot's own process namespace: the first one of an environment puts up
  its walls; each forks children, waits for them and kills what they leave behind; it never sees code or output, so
  that no later child can inherit any;
- the *child*, one an execution: waits ready, reads its code from its own socket and runs it.

What a forked interpreter touches is copied page by page, and that is most of what an environment costs. Hence the
plain style of this package: few functions, few modules, C functions where the library wraps them in Python, and
everything that can be prepared made in the zygote.
"""
