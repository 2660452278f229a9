-- Who has used this daemon, and the ids their containers have. Rows are never removed: a range that was one person's
-- is on disk and in other people's habits, and is never given to another.
CREATE TABLE owners (
    uid         INTEGER PRIMARY KEY,
    name        TEXT NOT NULL,
    gid         INTEGER NOT NULL,
    range_first INTEGER NOT NULL UNIQUE,
    since_ns    INTEGER NOT NULL
) STRICT;

-- Where each supplementary group of an owner is inside their containers. A slot is kept when the group is lost, so
-- that files in their images and containers never come to mean another group.
CREATE TABLE owner_groups (
    uid    INTEGER NOT NULL REFERENCES owners (uid),
    gid    INTEGER NOT NULL,
    inside INTEGER NOT NULL,
    PRIMARY KEY (uid, gid),
    UNIQUE (uid, inside)
) STRICT, WITHOUT ROWID;
