"""What statements are built of."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError

import sandgate.store
from sandgate.store.statements import HotStatement, insert, padded, upsert

_TABLE = sa.Table("things", sa.MetaData(), sa.Column("name", sa.Text, primary_key=True), sa.Column("size", sa.Integer))


@pytest.fixture
def connection() -> Iterator[sa.Connection]:
    """One to SQLite, with an empty table, in a transaction."""
    with sa.create_engine("sqlite://").connect() as made:
        _TABLE.create(made)
        yield made


def test_a_hot_statement_counts_the_rows_that_it_wrote(connection: sa.Connection) -> None:
    """Whether they were added, changed, or left as they were; and is undone with its transaction."""
    put = HotStatement(upsert(_TABLE, "(name) DO UPDATE SET size = excluded.size WHERE things.size < excluded.size"))
    connection.commit()
    connection.begin()
    assert [put.run(connection, {"name": "a", "size": size}) for size in (1, 2, 2)] == [1, 1, 0]
    connection.rollback()
    assert connection.execute(sa.select(_TABLE)).all() == []


def test_a_hot_statement_fails_as_others_do(connection: sa.Connection) -> None:
    """With the errors that the store knows, which tell nothing of what was to be written."""
    add = HotStatement(insert(_TABLE))
    add.run(connection, {"name": "secret", "size": 1})
    with pytest.raises(IntegrityError) as refused:
        add.run(connection, {"name": "secret", "size": 1})
    assert "secret" not in str(refused.value)
    _TABLE.drop(connection)
    with pytest.raises(OperationalError):
        add.run(connection, {"name": "b", "size": 1})


def test_lists_have_few_lengths() -> None:
    """Nothing is added to them but the last value again, and none gets more than twice as long."""
    assert padded([]) == []
    lengths = set()
    for count in range(1, 3_000):
        values = range(count)
        found = padded(values)
        assert found[:count] == list(values)
        assert set(found[count:]) <= {count - 1}
        assert len(found) < 2 * count or count == 1 == len(found)
        lengths.add(len(found))
    assert lengths == {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1536, 2048, 2560, 3072}


def test_every_list_is_one_of_those() -> None:
    """Whoever binds a list of any length has come by :func:`padded`."""
    (folder,) = sandgate.store.__path__
    texts = {path.name: path.read_text(encoding="utf-8") for path in Path(folder).glob("*.py")}
    assert {name for name, text in texts.items() if "expanding=" in text} == {"statements.py"}
    assert {name for name, text in texts.items() if "is_one_of(" in text and "padded(" not in text} == set()
