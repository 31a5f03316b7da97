package apiclient

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/pause"
)

// quiet is how long the server may say nothing while events are followed. It sends a
// sign of life each 15 seconds.
const quiet = time.Minute

// maxEvent is how many bytes a line of the events may have.
const maxEvent = 4 << 20

// Watch follows the jobs of these ids until settled says of all of them that nothing
// more is waited for, or ctx ends. tell is called with each job as it is at the
// beginning, and at each change. A connection that breaks is made again. If the server
// is away for too long, the error matches ErrLost.
func (c *Client) Watch(ctx context.Context, ids []string, tell func(api.Job), settled func(api.Job) bool) error {
	w := &watcher{c: c, tell: tell, settled: settled, open: map[string]int{}}
	for _, id := range ids {
		w.open[id] = -1
	}
	since := time.Now()
	for n := 0; len(w.open) > 0; n++ {
		came, err := w.once(ctx)
		switch {
		case len(w.open) == 0:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.As(err, new(*awayError)):
			return err
		}
		if came {
			since, n = time.Now(), 0
		}
		if time.Since(since) >= c.cfg.Away {
			return fmt.Errorf("%w: %w", ErrLost, err)
		}
		if err := pause.For(ctx, min(100*time.Millisecond<<min(n, 6), 5*time.Second)); err != nil {
			return err
		}
	}
	return nil
}

type watcher struct {
	c       *Client
	tell    func(api.Job)
	settled func(api.Job) bool
	open    map[string]int // jobs that are waited for, and the step of each that was told
	last    string         // id of the last event
}

// once follows events over one connection. came says that the server said something.
func (w *watcher) once(ctx context.Context) (came bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	head := http.Header{}
	if w.last != "" {
		head.Set("Last-Event-ID", w.last)
	}
	resp, err := w.c.send(ctx, http.MethodGet, Path("events"), nil, head)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	silence := time.AfterFunc(quiet, func() { cancel(errSilent) })
	defer silence.Stop()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	var id, name, data string
	for lines.Scan() {
		silence.Reset(quiet)
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			id = value
		case "event":
			name = value
		case "data":
			data = value
		}
		if lines.Text() != "" {
			continue
		}
		came = true
		if err := w.event(ctx, name, data); err != nil {
			return came, err
		}
		if id != "" {
			w.last = id
		}
		if len(w.open) == 0 {
			return came, nil
		}
		id, name, data = "", "", ""
	}
	if err = lines.Err(); err == nil {
		err = io.ErrUnexpectedEOF
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return came, &awayError{err}
}

var errSilent = errors.New("the server is silent")

func (w *watcher) event(ctx context.Context, name, data string) error {
	switch name {
	case "reset": // events are missing, so all is read anew
		for id := range w.open {
			var j api.Job
			switch err := w.c.Do(ctx, http.MethodGet, Path("jobs", id), nil, &j); {
			case errors.Is(err, ErrLost):
				return &awayError{err} // the connection to the events broke too
			case err != nil:
				return err
			}
			w.take(j)
		}
	case "job":
		var j api.Job
		if err := json.Unmarshal([]byte(data), &j); err != nil {
			return fmt.Errorf("an event of the server cannot be understood: %w", err)
		}
		w.take(j)
	}
	return nil
}

// take takes a job as it is now. One that is older than what was told says nothing.
func (w *watcher) take(j api.Job) {
	step, waited := w.open[j.ID]
	if !waited || j.Step < step {
		return
	}
	w.open[j.ID] = j.Step
	w.tell(j)
	if w.settled(j) {
		delete(w.open, j.ID)
	}
}

// FollowLog copies the log of a box from an offset on, and goes on with what comes
// later until ctx ends. If the offset is negative, it counts from the end. A connection
// that breaks is made again, and the log goes on where it was.
func (c *Client) FollowLog(ctx context.Context, box string, offset int64, to io.Writer) error {
	since := time.Now()
	for n := 0; ; n++ {
		resp, err := c.send(ctx, http.MethodGet, fmt.Sprintf("%s?follow=true&offset=%d", Path("boxes", box, "log"), offset), nil, nil)
		if err == nil {
			if at, err := strconv.ParseInt(resp.Header.Get(api.LogOffset), 10, 64); err == nil {
				offset = at
			}
			out := &counter{to: to}
			_, err = io.Copy(out, resp.Body)
			resp.Body.Close()
			if out.err != nil {
				return out.err
			}
			offset += out.n
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			since, n = time.Now(), 0
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !errors.As(err, new(*awayError)) && resp == nil:
			return err
		case time.Since(since) >= c.cfg.Away, errors.Is(err, fs.ErrPermission):
			return fmt.Errorf("%w: %w", ErrLost, err)
		}
		if err := pause.For(ctx, min(200*time.Millisecond<<min(n, 5), 5*time.Second)); err != nil {
			return err
		}
	}
}

// counter counts what was written, and keeps an error of the writer apart.
type counter struct {
	to  io.Writer
	n   int64
	err error
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.to.Write(b)
	c.n += int64(n)
	c.err = err
	return n, err
}
