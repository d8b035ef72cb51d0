"""What stands at the head of an attack, so that it harms nobody who runs it by mistake where it is not held."""

# The way by which code came is open, and nobody inside is root. Leaves ``os`` behind.
ONLY_INSIDE = """
import os
def only_inside():
    try: os.fstat(63)
    except OSError: return False
    return os.getuid() != 0
if not only_inside():
    os.write(2, b'this is no sandbox; nothing was done')
    os._exit(86)
"""
