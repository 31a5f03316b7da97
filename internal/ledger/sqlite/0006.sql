-- Logins to the web page. Each ends with its token at the latest.

CREATE TABLE logins (
	hash    BLOB    NOT NULL PRIMARY KEY,
	token   BLOB    NOT NULL REFERENCES tokens (hash),
	begun   INTEGER NOT NULL,
	expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX logins_token ON logins (token, begun);
CREATE INDEX logins_expires ON logins (expires);
