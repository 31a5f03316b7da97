-- What the store had at a time, so that its growth is seen and foretold, and how each kind of work on
-- it has ended last.

CREATE TABLE store_sizes (
	time    INTEGER NOT NULL PRIMARY KEY,
	stored  INTEGER NOT NULL,
	data    INTEGER NOT NULL,
	room    INTEGER NOT NULL,
	free    INTEGER NOT NULL,
	backups INTEGER NOT NULL
) STRICT;

CREATE TABLE store_work (
	work    TEXT    NOT NULL PRIMARY KEY,
	made_by TEXT    NOT NULL,
	begun   INTEGER NOT NULL,
	ended   INTEGER NOT NULL,
	outcome TEXT    NOT NULL,
	found   TEXT    NOT NULL
) STRICT;
