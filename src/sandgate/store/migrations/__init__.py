"""Alembic's folder: one file a version, applied in a row.

To change the schema: change ``schema.py``, add ``versions/vNNNN_what.py`` by hand with the next number, and add the
number to ``REVISIONS``. Revisions say types of their own and import nothing of the product, so that they stay what
they were when the product changes. There is no way back: restore a backup instead.
"""
