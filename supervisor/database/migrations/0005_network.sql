-- Networks, who is on them, and the host ports that are published. What the kernel has is made to agree with this.
CREATE TABLE networks (
    number INTEGER PRIMARY KEY,      -- names the bridge
    id TEXT NOT NULL UNIQUE,
    owner INTEGER NOT NULL,
    name TEXT NOT NULL,
    subnet TEXT NOT NULL UNIQUE,
    created_ns INTEGER NOT NULL,
    UNIQUE (owner, name)
) STRICT;

CREATE TABLE endpoints (
    container_id TEXT PRIMARY KEY,
    container_name TEXT NOT NULL,
    owner INTEGER NOT NULL,
    mode TEXT NOT NULL,
    network INTEGER REFERENCES networks (number),  -- with address and link: of bridged ones alone
    address TEXT,
    link INTEGER UNIQUE,             -- names the veth pair
    UNIQUE (network, address)
) STRICT;

CREATE TABLE published_ports (
    container_id TEXT NOT NULL REFERENCES endpoints (container_id) ON DELETE CASCADE,
    container_port INTEGER NOT NULL,
    protocol TEXT NOT NULL,
    host_address TEXT NOT NULL,
    host_port INTEGER NOT NULL,
    PRIMARY KEY (protocol, host_address, host_port)
) STRICT;

CREATE INDEX published_ports_of_container ON published_ports (container_id);
