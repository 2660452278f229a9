-- Volumes, private to their owner, and the containers that hold them.

CREATE TABLE volumes (
    owner      INTEGER NOT NULL,
    name       TEXT NOT NULL,
    anonymous  INTEGER NOT NULL,          -- made for one container, removed with it by rm -v and prune
    filled     INTEGER NOT NULL,          -- whether it was used: only a fresh one is filled from an image
    labels     TEXT NOT NULL,             -- JSON
    options    TEXT NOT NULL,             -- JSON
    created_ns INTEGER NOT NULL,
    PRIMARY KEY (owner, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE volume_holds (
    owner     INTEGER NOT NULL,
    name      TEXT NOT NULL,
    container TEXT NOT NULL,
    PRIMARY KEY (owner, name, container),
    FOREIGN KEY (owner, name) REFERENCES volumes (owner, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX volume_holds_by_container ON volume_holds (container);
