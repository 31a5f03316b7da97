package dispatch

import (
	"log/slog"
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/wire"
)

// maxLogged is how many bytes of an agent's lines go into the box's log in one
// session. Otherwise a box could fill the server's disk.
const maxLogged = 64 << 20

// boxLog is the log of a box, for one job. A nil boxLog writes nothing. Whoever uses
// it has the lane.
type boxLog struct {
	log    *sharedir.Log
	host   string
	logged int64 // bytes of the agent's lines in this session
	limit  int64
}

// openLog opens the log of a job's box, if it is not open. The host is "" for the name that
// the ledger has, if any. A log that cannot be opened keeps nothing from being done.
func (d *Dispatch) openLog(t *task, host string) {
	if host == "" && t.log == nil && d.cfg.Area != nil {
		b, _ := d.box(d.ctx, t.job) // if the ledger cannot be read, the name is not known
		host = b.Name
	}
	if !box.ValidHost(host) {
		host = "unknown"
	}
	if l := t.log; l != nil && (l.host == host || host == "unknown" || l.log.Flush() != nil) || d.cfg.Area == nil {
		return // a log that keeps lines since they cannot be written is not given up
	}
	f, err := d.cfg.Area.Box(t.job.Box)
	if err != nil {
		d.log(slog.LevelError, t.job.ID, "the log of a box cannot be written", "box", t.job.Box.String(), "error", err)
		return
	}
	fresh := &boxLog{log: f.Log(host, sharedir.LogOptions{Now: d.cfg.Now}), host: host, limit: maxLogged}
	if t.log != nil {
		fresh.logged, fresh.limit = t.log.logged, t.log.limit
	}
	t.log = fresh
}

// begin begins the log of another session.
func (l *boxLog) begin() {
	if l != nil {
		l.logged = 0
	}
}

// write writes lines of the agent. Lines of one kind that follow each other are
// written together.
func (l *boxLog) write(lines []wire.Line) {
	if l == nil {
		return
	}
	for len(lines) > 0 && l.logged < l.limit {
		n := 1
		for n < len(lines) && lines[n].Kind == lines[0].Kind && lines[0].Kind != wire.LineHello {
			n++
		}
		texts := make([]string, n)
		for i, line := range lines[:n] {
			texts[i] = line.Text
			l.logged += int64(len(line.Text)) + 60 // with the time and the address
		}
		text := strings.Join(texts, "\n")
		switch lines[0].Kind {
		case wire.LineHello:
			l.log.Hello()
		case wire.LineAnnounce:
			l.log.Announce("%s", text)
		case wire.LineError:
			l.log.Error("%s", text)
		default:
			l.log.Info("%s", text)
		}
		lines = lines[n:]
		if l.logged >= l.limit {
			l.log.Error("this session has written %d MiB into the log, and what else it says is left out", l.limit>>20)
		}
	}
}

// say writes a line of the server.
func (l *boxLog) say(announce bool, text string) {
	switch {
	case l == nil:
	case announce:
		l.log.Announce("%s", text)
	default:
		l.log.Info("%s", text)
	}
}

func (l *boxLog) flush() {
	if l != nil {
		l.log.Flush()
	}
}
