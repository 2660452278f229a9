-- What administrators set for single owners, over the defaults of the settings; who it is for need not have been here yet.
CREATE TABLE owner_limits (
    uid   INTEGER NOT NULL,
    name  TEXT NOT NULL,             -- a key of [owner] in the settings
    value ANY NOT NULL,              -- INTEGER or REAL, as that key has it
    PRIMARY KEY (uid, name)
) STRICT, WITHOUT ROWID;
