-- Networks that people make, and containers on several of them. What is recorded is carried over.
CREATE TABLE new_networks (
    number INTEGER PRIMARY KEY,      -- names the bridge
    id TEXT NOT NULL UNIQUE,
    owner INTEGER NOT NULL,
    name TEXT NOT NULL,
    subnet TEXT NOT NULL UNIQUE,
    created_ns INTEGER NOT NULL,
    settings TEXT NOT NULL,          -- JSON: addresses, options, labels
    UNIQUE (owner, name)
) STRICT;

CREATE TABLE seats (
    container_id TEXT PRIMARY KEY,
    container_name TEXT NOT NULL,
    owner INTEGER NOT NULL,
    mode TEXT NOT NULL,
    host TEXT NOT NULL DEFAULT '',   -- the container whose namespace is shared
    servers TEXT NOT NULL DEFAULT '[]'  -- JSON: resolvers it was given
) STRICT;

CREATE TABLE new_endpoints (
    container_id TEXT NOT NULL REFERENCES seats (container_id) ON DELETE CASCADE,
    network INTEGER NOT NULL REFERENCES new_networks (number),
    link INTEGER NOT NULL,           -- names the veth pair
    interface TEXT NOT NULL,
    mac TEXT NOT NULL,
    address TEXT NOT NULL,
    address6 TEXT,
    aliases TEXT NOT NULL,           -- JSON
    links TEXT NOT NULL,             -- JSON
    PRIMARY KEY (container_id, network)
) STRICT;

CREATE TABLE new_published_ports (
    container_id TEXT NOT NULL REFERENCES seats (container_id) ON DELETE CASCADE,
    container_port INTEGER NOT NULL,
    protocol TEXT NOT NULL,
    host_address TEXT NOT NULL,
    host_port INTEGER NOT NULL,
    PRIMARY KEY (container_id, container_port, protocol, host_address, host_port)
) STRICT;

INSERT INTO new_networks SELECT number, id, owner, name, subnet, created_ns, '{}' FROM networks;
INSERT INTO seats (container_id, container_name, owner, mode) SELECT container_id, container_name, owner, mode FROM endpoints;
INSERT INTO new_endpoints SELECT container_id, network, link, 'eth0', '', address, NULL, '[]', '[]' FROM endpoints WHERE network IS NOT NULL;
INSERT INTO new_published_ports SELECT container_id, container_port, protocol, host_address, host_port FROM published_ports;

DROP TABLE published_ports;
DROP TABLE endpoints;
DROP TABLE networks;
ALTER TABLE new_networks RENAME TO networks;
ALTER TABLE new_endpoints RENAME TO endpoints;
ALTER TABLE new_published_ports RENAME TO published_ports;

CREATE INDEX endpoints_of_network ON endpoints (network);
