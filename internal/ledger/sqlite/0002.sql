-- What was seen of boxes at their start, and the machines that nobody knows.

ALTER TABLE boxes ADD COLUMN sight TEXT NOT NULL DEFAULT '{}';

CREATE TABLE machines (
	name      TEXT    NOT NULL PRIMARY KEY,
	last_seen INTEGER NOT NULL,
	document  TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
