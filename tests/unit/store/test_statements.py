"""What statements are built of."""

from pathlib import Path

import sandgate.store
from sandgate.store.statements import padded


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
