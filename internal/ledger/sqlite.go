package ledger

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/problem"
)

// schema has the steps by which the tables are made, sqlite/0001.sql and so on.
// A step that was released never changes.
//
//go:embed sqlite
var schema embed.FS

// applicationID is "TBXL" in the header of the file, and tells a ledger from
// other SQLite databases.
const applicationID = 0x5442584c

const (
	busy        = 10 * time.Second       // how long to wait for another program, such as sqlite3
	journalRoom = 16 << 20               // bytes of the journal from which on it should begin anew
	journalWait = 100 * time.Millisecond // how long to wait for Views then
)

// readCache is how much of the file each connection for Views keeps in memory, in KiB
// as SQLite has it. A list of 1000 boxes with their last jobs reads 9 MiB of a ledger
// with 100,000 jobs.
const readCache = "-16384"

// Options are for Open.
type Options struct {
	MustExist bool // a ledger that is not there is an error, and is not made
}

// sqliteDB is a database in one file.
type sqliteDB struct {
	path    string
	lock    *os.File
	writer  *sql.DB // one connection
	readers *sql.DB
	copies  sync.Mutex // one copy at a time
	journal int64      // the size from which on the journal should begin anew
}

// Open opens the ledger of a file, and makes it if it is not there. A ledger of
// an older version of this program is brought up to date. Nobody else can open
// it until Close. One that had no Close is put right.
func Open(ctx context.Context, file string, opt Options) (*Ledger, error) {
	return open(ctx, file, opt, schema)
}

func open(ctx context.Context, file string, opt Options, steps fs.FS) (*Ledger, error) {
	file, err := realPath(file)
	if err != nil {
		return nil, err
	}
	d := &sqliteDB{path: file, journal: journalRoom}
	if err := d.open(ctx, opt, steps); err != nil {
		d.close()
		return nil, fmt.Errorf("open the ledger %s: %w", file, d.explain(err))
	}
	return newLedger(d), nil
}

// realPath is where a file is, or will be made. SQLite puts the journal there, and
// whoever comes by another link must find the same lock.
func realPath(file string) (string, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(file); !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(file))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the folder of %s is not there: %w", file, err)
	}
	return filepath.Join(dir, filepath.Base(file)), err
}

func (d *sqliteDB) open(ctx context.Context, opt Options, steps fs.FS) error {
	sqls, err := readSteps(steps)
	if err != nil {
		return err
	}
	if err := d.takeLock(); err != nil {
		return err
	}
	header, err := d.header()
	switch {
	case errors.Is(err, fs.ErrNotExist) && opt.MustExist:
		return fmt.Errorf("%w; put the newest copy of it in its place", err)
	case errors.Is(err, fs.ErrNotExist):
		err = d.make(ctx, sqls)
	case err == nil:
		err = d.checkHeader(header)
	}
	if err != nil {
		return err
	}
	if d.writer, err = sql.Open("sqlite", dsn(d.path, "rw", "_txlock=immediate")); err != nil {
		return err
	}
	d.writer.SetMaxOpenConns(1)
	version, err := version(ctx, d.writer, sqls)
	if err != nil {
		return err
	}
	if found, err := check(ctx, d.writer); err != nil || found != "" {
		return errors.Join(err, d.damaged(found))
	}
	if err := migrate(ctx, d.writer, sqls, version); err != nil {
		return err
	}
	if err := d.useJournal(ctx); err != nil {
		return err
	}
	if d.readers, err = sql.Open("sqlite", dsn(d.path, "rw", "_pragma=query_only(1)", "_pragma=cache_size("+readCache+")")); err != nil {
		return err
	}
	d.readers.SetMaxOpenConns(readers)
	d.readers.SetMaxIdleConns(readers)
	return d.readers.PingContext(ctx)
}

// dsn names a file for the driver, with what all connections have in common. It
// never makes the file.
func dsn(path, mode string, more ...string) string {
	q := append([]string{
		"mode=" + mode,
		"_dqs=0",
		"_error_rc=1",
		"_pragma=busy_timeout(" + strconv.FormatInt(busy.Milliseconds(), 10) + ")",
		"_pragma=synchronous(FULL)",
		"_pragma=foreign_keys(1)",
		"_pragma=cell_size_check(1)",
		"_pragma=trusted_schema(0)",
		"_pragma=temp_store(MEMORY)",
		"_pragma=journal_size_limit(" + strconv.Itoa(journalRoom) + ")",
	}, more...)
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + strings.Join(q, "&")
}

// takeLock makes sure that no other process uses the ledger. The lock is that of
// a file beside it. A lock of the file itself would take the locks of SQLite
// away when it is closed, as is the way of POSIX.
func (d *sqliteDB) takeLock() error {
	lock, err := os.OpenFile(d.path+".lock", os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	d.lock = lock
	durable.GiveToFolder(lock.Name()) // the server's user must be able to open what root has made
	switch err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return inUse(lock)
	case err != nil:
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	// The number is for people. It is no matter whether it can be written.
	lock.Truncate(0)
	lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return nil
}

// inUse is the error if a process has the lock, which has its number.
func inUse(lock *os.File) error {
	who := make([]byte, 20)
	n, _ := lock.ReadAt(who, 0)
	text := "it is in use by another process"
	if pid, err := strconv.Atoi(strings.TrimSpace(string(who[:n]))); err == nil {
		text = fmt.Sprintf("it is in use by the process %d", pid)
	}
	return &problem.Error{Kind: problem.Refused, Err: &known{text + "; end that one first", ErrInUse}}
}

// header reads the first 100 bytes of the file. No connection may be open, since
// closing the file takes the locks of SQLite away.
func (d *sqliteDB) header() ([]byte, error) {
	f, err := (durable.OS{}).Open(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		if left := d.leftJournal("the ledger is gone"); left != nil {
			return nil, left
		}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	header := make([]byte, min(f.Size(), 100))
	_, err = f.ReadAt(header, 0)
	return header, err
}

// leftJournal refuses a journal that does not belong to the ledger that is there.
// SQLite would put what is in it over the ledger, since it cannot tell.
func (d *sqliteDB) leftJournal(why string) error {
	for _, name := range []string{d.path + "-wal", d.path + "-journal"} {
		if st, err := os.Lstat(name); err == nil && st.Size() > 0 {
			return &known{fmt.Sprintf("%s, but %s is still there; move that file away, and put the newest copy of the ledger in its place",
				why, name), ErrDamaged}
		}
	}
	return nil
}

func (d *sqliteDB) checkHeader(h []byte) error {
	switch {
	case len(h) < 100:
		return d.damaged(fmt.Sprintf("the file has only %d bytes", len(h)))
	case !bytes.HasPrefix(h, []byte("SQLite format 3\x00")):
		return &known{"it is no SQLite database, or its beginning is damaged; " + d.advice(), ErrForeign}
	case binary.BigEndian.Uint32(h[68:]) != applicationID:
		return &known{"it is an SQLite database, but no ledger, or its beginning is damaged; " + d.advice(), ErrForeign}
	case h[18] == 1 && h[19] == 1: // a copy, which was never opened
		return d.leftJournal("a copy of the ledger was put in its place")
	}
	return nil
}

// damaged is the error for damage that was found, or nil if found is "".
func (d *sqliteDB) damaged(found string) error {
	if found == "" {
		return nil
	}
	return &known{"the ledger is damaged: " + found + "; " + d.advice(), ErrDamaged}
}

func (d *sqliteDB) advice() string {
	base := filepath.Base(d.path)
	return fmt.Sprintf("move %s, %s-wal and %s-shm away, and put the newest copy of the ledger in its place", base, base, base)
}

// make makes an empty ledger under another name first, so that a file that has
// the ledger's name is a whole one, and one that was cut is not taken for new.
func (d *sqliteDB) make(ctx context.Context, sqls []string) error {
	p, err := durable.Create(durable.OS{}, d.path, 0o600)
	if err != nil {
		return err
	}
	defer p.Abort()
	db, err := sql.Open("sqlite", dsn(p.TempPath(), "rw", "_pragma=journal_mode(MEMORY)"))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	_, err = db.ExecContext(ctx, "PRAGMA application_id = "+strconv.Itoa(applicationID))
	if err == nil {
		err = migrate(ctx, db, sqls, 0)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	return p.CommitNew()
}

// readSteps reads the steps of the schema in their order.
func readSteps(steps fs.FS) ([]string, error) {
	names, err := fs.Glob(steps, "sqlite/*.sql")
	if err != nil {
		return nil, err
	}
	var sqls []string
	for i, name := range names { // sorted
		if want := fmt.Sprintf("%04d.sql", i+1); path.Base(name) != want {
			return nil, fmt.Errorf("the schema has the step %s where %s belongs", name, want)
		}
		text, err := fs.ReadFile(steps, name)
		if err != nil {
			return nil, err
		}
		sqls = append(sqls, string(text))
	}
	return sqls, nil
}

// version is how many steps a ledger has taken. It is not more than there are.
func version(ctx context.Context, db *sql.DB, sqls []string) (v int, err error) {
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
		return 0, err
	}
	if v > len(sqls) || v < 0 {
		return 0, &problem.Error{Kind: problem.Refused, Err: &known{fmt.Sprintf("it has version %d, and this program knows versions up to %d; "+
			"use the newer version of the program", v, len(sqls)), ErrNewer}}
	}
	return v, nil
}

// migrate takes the steps that a ledger lacks, each in a transaction of its own.
func migrate(ctx context.Context, db *sql.DB, sqls []string, from int) error {
	for i, text := range sqls[from:] {
		if err := step(ctx, db, text, from+i+1); err != nil {
			return fmt.Errorf("bring the ledger from version %d to %d: %w", from+i, from+i+1, err)
		}
	}
	return nil
}

func step(ctx context.Context, db *sql.DB, text string, version int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, text); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "PRAGMA user_version = "+strconv.Itoa(version)); err != nil {
		return err
	}
	return tx.Commit()
}

// check reads all of a ledger, and says what damage SQLite finds in it, if any.
// SQLite has no sums of its pages. So it finds what is not in order, and not a
// text or number that became another one.
func check(ctx context.Context, db *sql.DB) (found string, err error) {
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&found); err != nil || found != "ok" {
		return found, err
	}
	rows, err := db.QueryContext(ctx, "PRAGMA foreign_key_check")
	if err != nil {
		return "", err
	}
	defer rows.Close()
	if rows.Next() {
		return "an entry refers to one that is gone", nil
	}
	return "", rows.Err()
}

// useJournal switches to a write-ahead journal, by which a View and an Update do
// not wait for each other, and makes sure that commits are durable.
func (d *sqliteDB) useJournal(ctx context.Context) error {
	var mode string
	if err := d.writer.QueryRowContext(ctx, "PRAGMA journal_mode(WAL)").Scan(&mode); err != nil {
		return err
	}
	var synchronous int
	if err := d.writer.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&synchronous); err != nil {
		return err
	}
	const full = 2
	if mode != "wal" || synchronous != full {
		return fmt.Errorf("the file system does not let SQLite work as it must: journal_mode is %s, synchronous is %d", mode, synchronous)
	}
	return nil
}

func (d *sqliteDB) begin(ctx context.Context, write bool) (*sql.Tx, error) {
	if write {
		return d.writer.BeginTx(ctx, nil)
	}
	return d.readers.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
}

// committed begins the journal anew when it has become long. SQLite does so by
// itself only if it meets a moment without a reader, and there may be none. A View
// that takes longer than journalWait is not waited for, and the journal grows.
func (d *sqliteDB) committed(ctx context.Context) {
	st, err := os.Stat(d.path + "-wal")
	if err != nil || st.Size() < d.journal {
		return
	}
	conn, err := d.writer.Conn(ctx)
	if err != nil {
		return
	}
	defer conn.Close()
	// Errors do no harm. All that is in the journal stays there.
	conn.ExecContext(ctx, "PRAGMA busy_timeout("+strconv.FormatInt(journalWait.Milliseconds(), 10)+")")
	stays := true
	conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&stays, new(any), new(any))
	conn.ExecContext(ctx, "PRAGMA busy_timeout("+strconv.FormatInt(busy.Milliseconds(), 10)+")")
	d.journal = journalRoom
	if stays {
		d.journal = st.Size() + journalRoom
	}
}

func (d *sqliteDB) close() error {
	var errs []error
	for _, db := range []*sql.DB{d.readers, d.writer} { // the last one clears the journal up
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}

// copyTo lets SQLite write a copy, which is a read of one state for it.
func (d *sqliteDB) copyTo(ctx context.Context, to string) error {
	d.copies.Lock()
	defer d.copies.Unlock()
	to, err := realPath(to)
	if err != nil {
		return err
	}
	return d.explainAt(filepath.Dir(to), d.copy(ctx, to))
}

func (d *sqliteDB) copy(ctx context.Context, to string) error {
	for _, taken := range []string{d.path, d.path + "-wal", d.path + "-shm", d.path + ".lock"} {
		if to == taken {
			return problem.Wrongf("that is where the ledger itself is")
		}
	}
	p, err := durable.Create(durable.OS{}, to, 0o600)
	if err != nil {
		return err
	}
	defer p.Abort()
	// A connection of readers must not write, not even to another file.
	if err := use(dsn(d.path, "rw"), func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, "VACUUM INTO ?", p.TempPath())
		return err
	}); err != nil {
		return err
	}
	if err := use(dsn(p.TempPath(), "ro", "immutable=1"), func(db *sql.DB) error {
		found, err := check(ctx, db)
		if err == nil && found != "" {
			err = fmt.Errorf("the copy is not whole: %s", found)
		}
		return err
	}); err != nil {
		return err
	}
	return p.Commit()
}

// use runs f over a database that is open only for that.
func use(name string, f func(*sql.DB) error) error {
	db, err := sql.Open("sqlite", name)
	if err != nil {
		return err
	}
	return errors.Join(f(db), db.Close())
}

// code gives SQLite's own number of an error, and 0 if it is none of SQLite.
func code(err error) int {
	if e := (*sqlite.Error)(nil); errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

// primary is the part of a code that says what kind of error it is.
func primary(code int) int { return code & 0xff }

func (d *sqliteDB) unsure(err error) bool { return primary(code(err)) == sqlite3.SQLITE_IOERR }

func (d *sqliteDB) explain(err error) error { return d.explainAt(filepath.Dir(d.path), err) }

// explainAt explains an error of an access to a file of the folder dir.
func (d *sqliteDB) explainAt(dir string, err error) error {
	if err == nil {
		return nil
	}
	for _, told := range []error{ErrNotFound, ErrExists, ErrInUse, ErrNewer, ErrDamaged, ErrForeign, ErrFull, ErrReadOnly} {
		if errors.Is(err, told) {
			return err
		}
	}
	say := func(is error, format string, args ...any) error {
		return &explained{fmt.Sprintf(format, args...), is, err}
	}
	switch c := code(err); {
	case primary(c) == sqlite3.SQLITE_FULL, errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), c == sqlite3.SQLITE_IOERR_SHMSIZE:
		return say(ErrFull, "there is no room left in %s; make some", dir)
	case primary(c) == sqlite3.SQLITE_CORRUPT, primary(c) == sqlite3.SQLITE_NOTADB:
		return say(ErrDamaged, "the ledger is damaged; %s", d.advice())
	case primary(c) == sqlite3.SQLITE_READONLY, errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission),
		primary(c) == sqlite3.SQLITE_CANTOPEN, primary(c) == sqlite3.SQLITE_PERM:
		return say(ErrReadOnly, "the folder %s and the files in it must be ones that this user can write to", dir)
	case primary(c) == sqlite3.SQLITE_BUSY, primary(c) == sqlite3.SQLITE_LOCKED:
		return say(ErrInUse, "another program has locked %s for more than %s; end it", d.path, busy)
	}
	return err
}

// explained is an error with what it means before it.
type explained struct {
	text  string
	is    error
	cause error
}

func (e *explained) Error() string   { return e.text + " (" + e.cause.Error() + ")" }
func (e *explained) Unwrap() []error { return []error{e.is, e.cause} }
