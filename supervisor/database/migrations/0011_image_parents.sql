-- Which images of an owner were built on one: those keep it from being removed, as with dockerd.

CREATE INDEX image_owners_by_parent ON image_owners (owner, parent) WHERE parent IS NOT NULL;
