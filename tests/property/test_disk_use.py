"""The disk's use as it is written down: whatever comes and goes in whatever order, it is the sum of what is there."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from supervisor.database import schema
from supervisor.runtime.disk_use import CONTAINER, LOGS, VOLUME, Thing, note, used

OWNERS = (1_000, 1_001)
NAMES = ("a", "b")
KINDS = (CONTAINER, LOGS, VOLUME)
KEYS = st.tuples(st.sampled_from(OWNERS), st.sampled_from(KINDS), st.sampled_from(NAMES))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("make"), KEYS, st.just(0)),
        st.tuples(st.just("measure"), KEYS, st.integers(0, 2**40)),
        st.tuples(st.just("remove"), KEYS, st.just(0)),
        st.tuples(st.just("undo"), KEYS, st.integers(0, 2**40)),
    ),
    max_size=30,
)


def opened() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    for migration in schema.migrations():
        for statement in schema.statements(migration.sql):
            connection.execute(statement)
    return connection


def make(connection: sqlite3.Connection, owner: int, kind: str, name: str) -> None:
    if kind == VOLUME:
        values = (owner, name, 0, 0, "{}", "{}", 0)
        connection.execute("INSERT OR IGNORE INTO volumes VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    else:
        values_ = (f"{owner}-{name}", owner, name, "{}", "{}")
        connection.execute("INSERT OR IGNORE INTO containers VALUES (?, ?, ?, ?, ?)", values_)


def remove(connection: sqlite3.Connection, owner: int, kind: str, name: str) -> None:
    if kind == VOLUME:
        connection.execute("DELETE FROM volumes WHERE owner = ? AND name = ?", (owner, name))
    else:
        connection.execute("DELETE FROM containers WHERE owner = ? AND name = ?", (owner, name))


@given(STEPS)
def test_it_is_the_sum_of_what_is_there(steps: list[tuple[str, tuple[int, str, str], int]]) -> None:
    """``undo`` is a unit that is cut off, as by a crash: nothing of it counts."""
    connection, there = opened(), set[tuple[int, bool, str]]()
    sizes: dict[tuple[int, str, str], int] = {}
    for step, (owner, kind, name), count in steps:
        place = (owner, kind == VOLUME, name)
        called = name if kind == VOLUME else f"{owner}-{name}"
        thing = Thing(owner, kind, called, Path("/"), 0)
        match step:
            case "make":
                make(connection, owner, kind, name)
                there.add(place)
            case "measure":
                note(connection, thing, count, 1)
                if place in there:
                    sizes[owner, kind, name] = count
            case "undo":
                connection.execute("SAVEPOINT unit")
                note(connection, thing, count, 1)
                remove(connection, owner, kind, name)
                connection.execute("ROLLBACK TO unit")
            case _:
                remove(connection, owner, kind, name)
                there.discard(place)
                gone = {key for key in sizes if (key[0], key[1] == VOLUME, key[2]) == place}
                sizes = {key: size for key, size in sizes.items() if key not in gone}
        for each in OWNERS:
            told = used(connection, each)
            for label, kind_ in (("containers", CONTAINER), ("logs", LOGS), ("volumes", VOLUME)):
                wanted = sum(s for (o, k, _), s in sizes.items() if (o, k) == (each, kind_))
                assert told[label] == wanted
    connection.close()


LAYERS = st.dictionaries(st.sampled_from(["l1", "l2", "l3"]), st.integers(0, 10**9), min_size=1)
HAVE = st.sets(st.tuples(st.sampled_from([*OWNERS, -1]), st.sampled_from(["i1", "i2"])))


@given(LAYERS, HAVE, st.sets(st.sampled_from(["l1", "l2", "l3"])))
def test_layers_are_paid_for_once_by_all_who_have_them(
    layers: dict[str, int], have: set[tuple[int, str]], cached: set[str]
) -> None:
    connection = opened()
    for layer, size in layers.items():
        row = (layer, None, None, None, size, 0)
        connection.execute("INSERT INTO layers VALUES (?, ?, ?, ?, ?, ?)", row)
    for image in ("i1", "i2"):
        connection.execute("INSERT INTO images VALUES (?, ?, 0, 0)", (image, b"{}"))
        for position, layer in enumerate(sorted(layers)):
            if image == "i1" or layer != "l1":
                values = (image, position, layer)
                connection.execute("INSERT INTO image_layers VALUES (?, ?, ?)", values)
    for owner, image in have:
        connection.execute("INSERT INTO image_owners VALUES (?, ?, NULL, 0)", (image, owner))
    for layer in cached & set(layers):
        row_ = (f"key-{layer}", OWNERS[0], layer, "t", 0, 0)
        connection.execute("INSERT INTO build_cache VALUES (?, ?, ?, ?, ?, ?)", row_)
    paid = sum(used(connection, owner)["images"] for owner in (*OWNERS, -1))
    owned = {layer for _, image in have for layer in layers if image == "i1" or layer != "l1"}
    total = sum(layers[layer] for layer in owned)
    assert total - 3 * len(owned) <= paid <= total  # shares are whole bytes
    own = {
        layer
        for owner, image in have
        if owner == OWNERS[0]
        for layer in layers
        if image == "i1" or layer != "l1"
    }
    assert used(connection, OWNERS[0])["cache"] == sum(
        size for layer, size in layers.items() if layer in cached and layer not in own
    )
    assert used(connection, OWNERS[1])["cache"] == 0
    connection.close()
