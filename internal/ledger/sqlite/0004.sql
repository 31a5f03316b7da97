-- Boxes whose address was changed, and whose files and backups have not followed yet.

CREATE TABLE moves (
	address TEXT    NOT NULL PRIMARY KEY,
	old     TEXT    NOT NULL UNIQUE,
	begun   INTEGER NOT NULL
) STRICT;
