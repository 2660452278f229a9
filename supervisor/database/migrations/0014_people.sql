-- Owners whom an administrator has suspended: nothing new of theirs begins. Who is not here may work.
CREATE TABLE owner_suspensions (
    uid      INTEGER PRIMARY KEY,
    reason   TEXT NOT NULL,
    by_whom  TEXT NOT NULL,            -- the administrator's login name
    since_ns INTEGER NOT NULL
) STRICT;
