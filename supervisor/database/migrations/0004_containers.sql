-- Containers and their execs. The record is fixed at creation, the state is what it has become; both are JSON.
CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    owner INTEGER NOT NULL,
    name TEXT NOT NULL,
    record TEXT NOT NULL,
    state TEXT NOT NULL,
    UNIQUE (owner, name)
) STRICT;

CREATE TABLE execs (
    id TEXT PRIMARY KEY,
    container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
    record TEXT NOT NULL
) STRICT;

CREATE INDEX execs_of_container ON execs (container_id);
