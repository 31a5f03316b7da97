package pid1

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/loop"
)

const (
	// fetchLimit is how long a root may take to come. It bounds what a server that is
	// slow on purpose can do.
	fetchLimit = time.Hour
	// maxFetch is the most bytes that a root may have.
	maxFetch = 8 << 30
	// memoryReserve is how many bytes of memory must be left beside the root, for the
	// system that runs from it.
	memoryReserve = 192 << 20
	// beatEvery is how many bytes are a sign of progress. A server that sends a byte
	// now and then makes none.
	beatEvery = 1 << 20
	// wrongTries is how often a root with a wrong hash is fetched.
	wrongTries = 3
	sayEvery   = 5 * time.Second
	// headerTime and quietTime are how long a server may take to begin an answer, and
	// to go on with it.
	headerTime = 30 * time.Second
	quietTime  = 30 * time.Second
)

// fetcher brings a root of the debian form into memory.
type fetcher struct {
	client *http.Client
	free   func() (int64, error) // bytes of memory that can be used
	say    func(string, ...any)
	beat   func()
	pause  time.Duration // between two tries
}

func newFetcher(s *system) *fetcher {
	return &fetcher{
		client: &http.Client{
			Transport: &http.Transport{
				DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, ResponseHeaderTimeout: headerTime,
				DisableCompression: true, DisableKeepAlives: true,
			},
			// A loader's server has no reason to send a box elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		free: freeMemory, say: s.say, beat: s.beat, pause: mountRetry,
	}
}

// errForGood is matched by errors that another try would have too. The box restarts
// after its retry time then, since somebody may have mended the cause.
var errForGood = errors.New("the root cannot be used")

// fetch returns a file in memory with the root. It tries again while the server is
// away, until the stall time ends it.
func (f *fetcher) fetch(ctx context.Context, root bootcfg.RootFile) (*os.File, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, fetchLimit, fmt.Errorf("the root did not come within %v", fetchLimit))
	defer cancel()
	for wrong := 1; ; wrong++ {
		file, sum, err := f.whole(ctx, root)
		if err != nil {
			return nil, err
		}
		if sum == root.SHA256 {
			return file, nil
		}
		file.Close()
		err = fmt.Errorf("%w: %s has the SHA-256 %s, and the boot file says %s; build the maintenance system anew, or arm the box anew",
			errForGood, root.URL(), sum, root.SHA256)
		if wrong == wrongTries {
			return nil, err
		}
		f.say("%v; trying again in %v", err, f.pause)
		if err := f.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// wait waits until the next try. It returns why there is none.
func (f *fetcher) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(f.pause):
		return nil
	}
}

// download is a root of which a part is there.
type download struct {
	*fetcher
	url   string
	file  *os.File
	hash  hash.Hash
	have  int64 // bytes
	total int64 // bytes; 0 if not known yet
	said  time.Time
}

// whole fetches all bytes, and goes on where a connection broke.
func (f *fetcher) whole(ctx context.Context, root bootcfg.RootFile) (file *os.File, sum string, err error) {
	fd, err := unix.MemfdCreate("testbox-root", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, "", fmt.Errorf("make a file in memory: %w", err)
	}
	d := &download{fetcher: f, url: root.URL(), file: os.NewFile(uintptr(fd), "root"), hash: sha256.New()}
	defer func() {
		if err != nil {
			d.file.Close()
		}
	}()
	f.say("fetching the root %s", d.url)
	begun := time.Now()
	for {
		err := d.more(ctx)
		switch {
		case err == nil:
			f.say("the root is there: %s in %.1f s", mega(d.have), time.Since(begun).Seconds())
			return d.file, hex.EncodeToString(d.hash.Sum(nil)), nil
		case errors.Is(err, errForGood):
			return nil, "", err
		case ctx.Err() != nil:
			return nil, "", context.Cause(ctx)
		}
		f.say("cannot fetch the root (%s so far): %v; trying again in %v", mega(d.have), err, f.pause)
		if err := f.wait(ctx); err != nil {
			return nil, "", err
		}
	}
}

func mega(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// more asks for what is still missing. It returns nil when all is there.
func (d *download) more(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return err
	}
	if d.have > 0 {
		q.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.have))
	}
	a, err := d.client.Do(q)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if err := d.begin(a); err != nil {
		return err
	}
	// Every read must come soon. Without a limit a connection whose server lost power
	// would be waited for.
	quiet := time.AfterFunc(quietTime, func() { cancel(fmt.Errorf("the server was silent for %v", quietTime)) })
	defer quiet.Stop()
	buf := make([]byte, 256<<10)
	last := d.have
	for d.have < d.total {
		n, err := a.Body.Read(buf[:min(int64(len(buf)), d.total-d.have)])
		quiet.Reset(quietTime)
		d.hash.Write(buf[:n])
		if _, err := d.file.Write(buf[:n]); err != nil {
			return fmt.Errorf("%w: there is no room in memory: %w", errForGood, err)
		}
		if d.have += int64(n); d.have-last >= beatEvery || d.have == d.total {
			last = d.have
			d.beat()
		}
		if now := time.Now(); now.Sub(d.said) >= sayEvery {
			d.said = now
			d.say("fetching the root: %s of %s", mega(d.have), mega(d.total))
		}
		switch {
		case d.have == d.total:
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil && context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		}
	}
	return nil
}

// begin looks at an answer before its first byte is used.
func (d *download) begin(a *http.Response) error {
	switch a.StatusCode {
	case http.StatusOK:
		if err := d.restart(); err != nil {
			return err
		}
		return d.fits(a.ContentLength)
	case http.StatusPartialContent:
		from, total, err := parseRange(a.Header.Get("Content-Range"))
		if err == nil && (from != d.have || total != d.total) {
			err = fmt.Errorf("it sends from %d of %d, and not from %d of %d", from, total, d.have, d.total)
		}
		if err != nil {
			return errors.Join(err, d.restart())
		}
		return nil
	case http.StatusRequestedRangeNotSatisfiable:
		return errors.Join(errors.New("the file has changed at the server"), d.restart())
	}
	return fmt.Errorf("the server answers %d %s", a.StatusCode, http.StatusText(a.StatusCode))
}

// restart forgets what is there.
func (d *download) restart() error {
	d.have, d.total = 0, 0
	d.hash.Reset()
	_, err := d.file.Seek(0, io.SeekStart)
	return errors.Join(err, d.file.Truncate(0))
}

// fits makes sure that so many bytes have room in memory. The box would run out of it
// later otherwise, and an admin would not see why.
func (d *download) fits(total int64) error {
	if total <= 0 || total > maxFetch {
		return fmt.Errorf("%w: the server says that it has %d bytes", errForGood, total)
	}
	free, err := d.free()
	if err == nil && free < total+memoryReserve {
		err = fmt.Errorf("%w: this box has %s of free memory; the root has %s, and %s beside it are needed", errForGood, mega(free), mega(total),
			mega(memoryReserve))
	}
	if err == nil {
		d.total = total
	}
	return err
}

// parseRange reads "bytes 100-199/200".
func parseRange(s string) (from, total int64, err error) {
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, all, ok2 := strings.Cut(rest, "/")
	first, _, ok3 := strings.Cut(span, "-")
	from, err1 := strconv.ParseInt(first, 10, 64)
	total, err2 := strconv.ParseInt(all, 10, 64)
	if !ok || !ok2 || !ok3 || err1 != nil || err2 != nil {
		return 0, 0, fmt.Errorf("it sends the part %.60q", s)
	}
	return from, total, nil
}

// freeMemory is what the kernel reckons can be used without swapping.
func freeMemory() (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		w := strings.Fields(lines.Text())
		if len(w) == 3 && w[0] == "MemAvailable:" && w[2] == "kB" {
			n, err := strconv.ParseInt(w[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("the kernel does not say how much memory is free")
}

// mountFile mounts a squashfs that is in a file, read-only, by a loop device. The
// device keeps the file, and is freed with the mount.
func mountFile(file *os.File, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	device, err := loop.Attach(file, loop.Part{})
	if err != nil {
		return fmt.Errorf("make a loop device: %w", err)
	}
	defer device.Close()
	if err := unix.Mount(device.Name(), dir, "squashfs", unix.MS_RDONLY|unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	return nil
}
