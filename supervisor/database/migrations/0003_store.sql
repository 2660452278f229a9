-- What is on disk: layers, snapshots, images and who has them.

CREATE TABLE layers (
    id         TEXT PRIMARY KEY,          -- its directory's name below layers/
    diff_id    TEXT,                      -- known once it was packed or came in with it
    blob       TEXT,                      -- digest of the tar it came as, kept so that it goes out the same; else it is packed
    tar_bytes  INTEGER,                   -- of the uncompressed tar; known when diff_id is
    bytes      INTEGER NOT NULL,
    created_ns INTEGER NOT NULL
) STRICT;
CREATE INDEX layers_by_diff_id ON layers (diff_id) WHERE diff_id IS NOT NULL;
CREATE INDEX layers_by_blob ON layers (blob) WHERE blob IS NOT NULL;

CREATE TABLE snapshots (
    key        TEXT PRIMARY KEY,
    owner      INTEGER NOT NULL,
    remapped   INTEGER NOT NULL,
    init_layer INTEGER NOT NULL,
    created_ns INTEGER NOT NULL
) STRICT;

CREATE TABLE snapshot_layers (
    key      TEXT NOT NULL REFERENCES snapshots (key) ON DELETE CASCADE,
    position INTEGER NOT NULL,            -- 0 is the bottom
    layer    TEXT NOT NULL REFERENCES layers (id),
    PRIMARY KEY (key, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX snapshot_layers_by_layer ON snapshot_layers (layer);

-- Layers somebody above the store needs: a build's cache entries, a build at work.
CREATE TABLE leases (
    holder TEXT NOT NULL,
    layer  TEXT NOT NULL REFERENCES layers (id),
    PRIMARY KEY (holder, layer)
) STRICT, WITHOUT ROWID;
CREATE INDEX leases_by_layer ON leases (layer);

-- Content: one row however many owners have it.
CREATE TABLE images (
    id         TEXT PRIMARY KEY,          -- digest of config
    config     BLOB NOT NULL,             -- the very bytes the id is the digest of
    bytes      INTEGER NOT NULL,
    created_ns INTEGER NOT NULL           -- when it came to this store
) STRICT;

CREATE TABLE image_layers (
    image    TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    layer    TEXT NOT NULL REFERENCES layers (id),
    PRIMARY KEY (image, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layers_by_layer ON image_layers (layer);

-- Who has it: an owner's uid, or -1 for the namespace the administrators share with all.
CREATE TABLE image_owners (
    image    TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    owner    INTEGER NOT NULL,
    parent   TEXT,                        -- as Docker's inspect shows it; may be gone
    since_ns INTEGER NOT NULL,
    PRIMARY KEY (image, owner)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_owners_by_owner ON image_owners (owner);

CREATE TABLE image_names (
    owner      INTEGER NOT NULL,
    repository TEXT NOT NULL,             -- canonical
    tag        TEXT NOT NULL,
    image      TEXT NOT NULL,
    since_ns   INTEGER NOT NULL,
    PRIMARY KEY (owner, repository, tag),
    FOREIGN KEY (image, owner) REFERENCES image_owners (image, owner)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_names_by_image ON image_names (image, owner);
