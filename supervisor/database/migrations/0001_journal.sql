-- The journal: every state change, in the order of commit.
-- AUTOINCREMENT's counter is a row like any other, so a unit that is undone takes its numbers back: seq has no gaps.
CREATE TABLE event (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ns    INTEGER NOT NULL,
    owner      INTEGER NOT NULL,  -- host uid
    type       TEXT NOT NULL,
    subject    TEXT NOT NULL,
    body       BLOB NOT NULL      -- JSON: {"actor": …, "data": …}
) STRICT;
CREATE INDEX event_by_owner ON event (owner, seq);
CREATE INDEX event_by_time ON event (time_ns);

-- How much is kept for each owner, so that nobody can push out another's history.
CREATE TABLE event_share (
    owner      INTEGER PRIMARY KEY,  -- host uid
    events     INTEGER NOT NULL,
    bytes      INTEGER NOT NULL,
    forgotten  INTEGER NOT NULL DEFAULT 0  -- the highest seq of theirs that is no longer kept
) STRICT;
