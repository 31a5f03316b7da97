-- The first version of the ledger. Times are nanoseconds since 1970 in UTC, and
-- 0 is no time. Addresses of boxes are in hexadecimal, as boot files are named,
-- so that they sort by number. docs/format.md says what each column means.

CREATE TABLE boxes (
	address      TEXT    NOT NULL PRIMARY KEY,
	name         TEXT    NOT NULL,
	uuid         TEXT    NOT NULL,
	health       TEXT    NOT NULL,
	health_why   TEXT    NOT NULL,
	holder       TEXT    NOT NULL,
	holder_why   TEXT    NOT NULL,
	holder_until INTEGER NOT NULL,
	settings     TEXT    NOT NULL,
	first_seen   INTEGER NOT NULL,
	last_seen    INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX boxes_name ON boxes (lower(name)) WHERE name <> '';
CREATE INDEX boxes_uuid ON boxes (uuid) WHERE uuid <> '';

CREATE TABLE box_groups (
	address    TEXT NOT NULL REFERENCES boxes (address) ON DELETE CASCADE,
	group_name TEXT NOT NULL REFERENCES groups (name),
	PRIMARY KEY (address, group_name)
) STRICT, WITHOUT ROWID;
CREATE INDEX box_groups_group ON box_groups (group_name, address);

CREATE TABLE box_labels (
	address TEXT NOT NULL REFERENCES boxes (address) ON DELETE CASCADE,
	label   TEXT NOT NULL,
	PRIMARY KEY (address, label)
) STRICT, WITHOUT ROWID;
CREATE INDEX box_labels_label ON box_labels (label, address);

CREATE TABLE box_macs (
	address TEXT NOT NULL REFERENCES boxes (address) ON DELETE CASCADE,
	mac     TEXT NOT NULL,
	PRIMARY KEY (address, mac)
) STRICT, WITHOUT ROWID;
CREATE INDEX box_macs_mac ON box_macs (mac, address);

CREATE TABLE jobs (
	id       TEXT    NOT NULL PRIMARY KEY,
	box      TEXT    NOT NULL,
	state    TEXT    NOT NULL,
	created  INTEGER NOT NULL,
	changed  INTEGER NOT NULL,
	ended    INTEGER NOT NULL,
	made_by  TEXT    NOT NULL,
	made_key TEXT    NOT NULL,
	document TEXT    NOT NULL
) STRICT;
CREATE UNIQUE INDEX jobs_key ON jobs (made_by, made_key, box) WHERE made_key <> '';
CREATE INDEX jobs_box ON jobs (box, created, id);
CREATE INDEX jobs_created ON jobs (created, id);
CREATE INDEX jobs_by ON jobs (made_by, created, id);
CREATE INDEX jobs_open ON jobs (created, id) WHERE ended = 0;

CREATE TABLE sessions (
	hash    BLOB    NOT NULL PRIMARY KEY,
	job     TEXT    NOT NULL REFERENCES jobs (id),
	attempt INTEGER NOT NULL,
	address TEXT    NOT NULL,
	created INTEGER NOT NULL,
	used    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_job ON sessions (job, hash);

CREATE TABLE users (
	name     TEXT NOT NULL PRIMARY KEY,
	role     TEXT NOT NULL,
	password TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE groups (
	name     TEXT NOT NULL PRIMARY KEY,
	settings TEXT NOT NULL
) STRICT;

CREATE TABLE tokens (
	hash       BLOB    NOT NULL PRIMARY KEY,
	name       TEXT    NOT NULL,
	user_name  TEXT             REFERENCES users (name),
	role       TEXT    NOT NULL,
	group_name TEXT             REFERENCES groups (name),
	expires    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_user ON tokens (user_name, hash);
CREATE INDEX tokens_group ON tokens (group_name);

CREATE TABLE schedules (
	name     TEXT    NOT NULL PRIMARY KEY,
	spec     TEXT    NOT NULL,
	target   TEXT    NOT NULL,
	settings TEXT    NOT NULL,
	last_run INTEGER NOT NULL
) STRICT;

CREATE TABLE audit (
	number  INTEGER NOT NULL PRIMARY KEY,
	time    INTEGER NOT NULL,
	who     TEXT    NOT NULL,
	origin  TEXT    NOT NULL,
	what    TEXT    NOT NULL,
	subject TEXT    NOT NULL,
	why     TEXT    NOT NULL
) STRICT;
CREATE INDEX audit_time ON audit (time);
CREATE INDEX audit_who ON audit (who, number);
CREATE INDEX audit_subject ON audit (subject, number);

CREATE TABLE rates (
	box      TEXT    NOT NULL,
	what     TEXT    NOT NULL,
	rate     INTEGER NOT NULL,
	measured INTEGER NOT NULL,
	PRIMARY KEY (box, what)
) STRICT, WITHOUT ROWID;
