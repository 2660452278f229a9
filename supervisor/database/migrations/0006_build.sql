-- Builds at work, so that what a crash left of them can be told and cleared away; and the step cache.

CREATE TABLE builds (
    id         TEXT PRIMARY KEY,
    owner      INTEGER NOT NULL,
    started_ns INTEGER NOT NULL
) STRICT;

-- What a step made, by what it says and what it read. A RUN's key holds its owner; a COPY's is its content alone.
CREATE TABLE build_cache (
    key     TEXT PRIMARY KEY,
    owner   INTEGER NOT NULL,         -- whose bound it counts against: who made it
    layer   TEXT,                     -- leased as cache:<key>; NULL when the step changed nothing
    title   TEXT NOT NULL,
    made_ns INTEGER NOT NULL,
    used_ns INTEGER NOT NULL
) STRICT;
CREATE INDEX build_cache_by_owner ON build_cache (owner, used_ns);
CREATE INDEX build_cache_by_layer ON build_cache (layer) WHERE layer IS NOT NULL;
