-- What each owner's things took on the disk when they were last looked at. A size goes with its thing, in one transaction.
CREATE TABLE disk_use (
    owner       INTEGER NOT NULL,
    kind        TEXT NOT NULL,            -- container (what it has written), logs, volume
    name        TEXT NOT NULL,            -- the container's id, the volume's name
    bytes       INTEGER NOT NULL CHECK (bytes >= 0),
    measured_ns INTEGER NOT NULL,
    PRIMARY KEY (owner, kind, name)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER disk_use_of_container AFTER DELETE ON containers
BEGIN
    DELETE FROM disk_use WHERE owner = old.owner AND kind IN ('container', 'logs') AND name = old.id;
END;

CREATE TRIGGER disk_use_of_volume AFTER DELETE ON volumes
BEGIN
    DELETE FROM disk_use WHERE owner = old.owner AND kind = 'volume' AND name = old.name;
END;
