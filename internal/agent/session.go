package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/progress"
)

// session is one run of the agent.
type session struct {
	cfg    Config
	cmd    *bootcfg.Cmdline
	fsys   durable.FS
	arming Arming // nil until the command line is read
	home   Home   // nil in a rescue without access to the box's place
	log    Log    // nil until that place is open

	host     string
	version  string        // of the maintenance system
	uuid     string        // of this machine; "" if unknown
	ahead    time.Duration // how far the storage server's clock is ahead of ours
	receipts []image.Receipt
	warnings []string        // repeated with the outcome
	hostKeys []box.HostKey   // of a rescue's ssh server
	mayWrite bool            // the other side was asked before the first write
	joins    bool            // this program goes on with a session that the agent has begun
	away     time.Duration   // how long a server may be away; 0 is the usual time
	said     box.Outcome     // that was logged already; "" if none was
	meter    *progress.Meter // of the action; nil before its work is known
	telling  *teller         // of the running or last stage; nil before the first
	note     *efi.Note       // of the firmware; nil before the action
	known    KnownFirmware   // from before
	odd      error           // of a word of the command line that cannot be used; nil if all can
}

func newSession(cfg Config) *session {
	if cfg.Console == nil {
		cfg.Console = io.Discard
	}
	if cfg.Alive == nil {
		cfg.Alive = func() {}
	}
	return &session{cfg: cfg, fsys: durable.OS{}}
}

// now returns the storage server's time, as far as it is known.
func (s *session) now() time.Time { return time.Now().Add(s.ahead).UTC() }

// start does the action, and tells everybody how it ended.
func (s *session) start(ctx context.Context) (box.Outcome, Next) {
	err := s.run(ctx)
	outcome := outcomeOf(err)
	if outcome != s.said {
		s.say(outcome, err)
	}
	return outcome, s.conclude(outcome, err)
}

// run does the action. If the outcome asks for it, run disarms the box.
func (s *session) run(ctx context.Context) error {
	s.cfg.Alive()
	if err := s.readCmdline(); err != nil {
		return err
	}
	// An arming ends when it expires, even if something is permanently wrong with
	// the areas, the boot file, the box's folder or its address.
	for _, step := range []func() error{s.openHome, s.checkWords, s.checkArming} {
		s.cfg.Alive()
		if err := step(); err != nil {
			return s.unlessExpired(err)
		}
	}
	done, result, err := s.alreadyDone()
	switch {
	case done:
		s.log.Info("the %s of this arming was done by an earlier start; only disarming", s.cmd.Action)
		return s.disarmAfter(result)
	case s.expired():
		return s.endExpired()
	case err != nil:
		return err
	}
	if err := s.checkAddress(); err != nil {
		return err
	}
	if s.home != nil {
		if err := s.home.SetHost(s.host); err != nil {
			s.log.Error("%v", err)
		}
	}
	s.fault("")
	result = s.watched(ctx)
	if outcomeOf(result).Class() != box.Ended {
		return result
	}
	s.fault("-disarm")
	s.sayFirst(result)
	if err := s.home.Record(s.endOf(result)); err != nil {
		// The record only protects from doing the action again. So an error here must
		// not make a good restore be repeated because a storage server is full.
		s.log.Error("the record of what was done is not written: %v", err)
	}
	return s.disarmAfter(result)
}

// watched does the action until the other side wants it to stop.
func (s *session) watched(ctx context.Context) error {
	if s.home == nil {
		return s.act(ctx)
	}
	ctx, end := s.home.Watch(ctx)
	defer end()
	err := s.act(ctx)
	var stop *StopError
	if class := outcomeOf(err).Class(); class == box.Ended || class == box.StaysUp || errors.As(err, &stop) ||
		!errors.As(context.Cause(ctx), &stop) {
		return err
	}
	return fmt.Errorf("%w (%w)", stop, err)
}

// endOf says how this start ends after an action with this result.
func (s *session) endOf(result error) End {
	return End{Outcome: outcomeOf(result), Err: result, Receipts: s.receipts, Warnings: s.warnings, HostKeys: s.hostKeys}
}

// sayFirst logs the outcome of an action that has ended, if that would be too late
// after the disarm.
func (s *session) sayFirst(result error) {
	if outcome := outcomeOf(result); s.arming.SayFirst() && s.said == "" {
		s.said = outcome
		s.say(outcome, result)
	}
}

func (s *session) expired() bool { return !s.cmd.Expires.IsZero() && s.now().After(s.cmd.Expires) }

func (s *session) endExpired() error {
	s.log.Error("armed for %s until %s: too old, nothing is done", s.cmd.Action, s.cmd.Expires.Format(time.RFC3339))
	return s.disarmAfter(errExpired)
}

// unlessExpired returns why, the reason that the action cannot begin. If the
// arming has expired, it ends the arming instead, since the box would otherwise
// try again forever. A box that is not armed any more does not try again.
func (s *session) unlessExpired(why error) error {
	if _, err := s.arming.Agrees(); errors.As(err, new(*NotArmedError)) {
		return why
	}
	if s.home == nil {
		var err error
		if s.ahead, err = s.arming.Clock(); err != nil {
			return why
		}
	}
	if !s.expired() {
		return why
	}
	if s.log == nil {
		s.openLog(nil)
	}
	s.log.Error("%v", why)
	return s.endExpired()
}

// disarmAfter disarms the box whose action ended with result.
func (s *session) disarmAfter(result error) error {
	s.sayFirst(result)
	if err := s.arming.Disarm(s.endOf(result)); err != nil {
		return err
	}
	return result
}

func (s *session) readCmdline() error {
	cmd, err := bootcfg.ParseCmdline(s.cfg.Cmdline)
	if cmd == nil {
		return refusal{err}
	}
	s.odd = err
	return s.startedWith(cmd)
}

// checkWords refuses an action whose words this agent does not all know. That is
// said in the box's log, and by then an arming that has expired can be ended.
func (s *session) checkWords() error {
	if s.odd != nil {
		return refusal{s.odd}
	}
	return nil
}

// startedWith stores the command line, and makes the implementation of Arming
// for its mode. Another mode is added here.
func (s *session) startedWith(cmd *bootcfg.Cmdline) error {
	s.cmd = cmd
	switch cmd.Mode {
	case bootcfg.ShareMode:
		s.arming = s.share()
	case bootcfg.ServerMode:
		server, err := s.server()
		if err != nil {
			return refusal{err}
		}
		s.arming = server
	default:
		return refuse("this maintenance system does not know the mode %s; build it anew with the program that armed the box", cmd.Mode)
	}
	return nil
}

// share makes share mode's implementation of Arming.
func (s *session) share() *Share {
	return &Share{
		FS: s.fsys, TFTP: s.cfg.TFTP, Backup: s.cfg.Backup, Cmd: s.cmd, Console: s.cfg.Console, Now: s.now, Voice: voice{s},
	}
}

// server makes server mode's implementation of Arming.
func (s *session) server() (*Server, error) {
	cfg := ServerConfig{
		Cmd: s.cmd, Console: s.cfg.Console, Now: s.now, Voice: voice{s}, Alive: s.cfg.Alive,
		Run: s.cfg.Run, Join: s.joins, Away: s.away, Version: startedVersion(s.cfg.Cmdline), RoomMemory: s.cfg.RoomMemory,
	}
	if !s.joins {
		cfg.MACs = macs(s.cfg.Sys)
		cfg.UUID, _ = inventory.MachineUUID(s.cfg.Sys)
	}
	return NewServer(cfg)
}

// checkAddress refuses to work on a machine that is not the armed box.
func (s *session) checkAddress() error {
	if s.cfg.Address == s.cmd.Address {
		return nil
	}
	if !s.cfg.Address.IsZero() {
		return refuse("this box has the address %s, but was started with the boot file of %s", s.cfg.Address, s.cmd.Address)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	var have []string
	for _, a := range addrs {
		ip, _, _ := strings.Cut(a.String(), "/")
		if ip == s.cmd.Address.String() {
			return nil
		}
		have = append(have, ip)
	}
	return refuse("this box was started with the boot file of %s, but has the addresses %s", s.cmd.Address, strings.Join(have, ", "))
}

// openHome reaches the other side, and opens the box's place and its log.
func (s *session) openHome() error {
	if err := s.arming.Reach(); err != nil {
		return refusal{err}
	}
	home, err := s.arming.Open()
	if err != nil && !s.isRescue() {
		return refusal{err}
	}
	clockErr := s.openLog(home)
	if home == nil || clockErr != nil {
		s.ahead, clockErr = s.arming.Clock()
	}
	s.log.Hello()
	s.log.Announce("%s", begun(s.cmd.Action, s.cmd.Arming))
	if clockErr != nil {
		s.log.Error("the storage server's time is not known, times are this box's: %v", clockErr)
	}
	s.uuid, _ = inventory.MachineUUID(s.cfg.Sys)
	return s.passOver(err)
}

// openLog opens the box's log. Without a home the console is the log. If the
// server's time cannot be read, the box's own time is used. If that is wrong,
// an arming ends too early or too late at worst, and the log says which clock
// it was.
func (s *session) openLog(home Home) (clockErr error) {
	s.home = home
	if home == nil {
		s.host = s.hostName()
		s.log = consoleLog(s.cmd.Address, s.host, s.cfg.Console, s.now)
		return nil
	}
	s.ahead, clockErr = home.Clock()
	s.host = s.hostName()
	s.log = home.Log(s.host)
	return clockErr
}

// hostName returns the configured, the armed or the looked up name. Without one
// it is "unknown".
func (s *session) hostName() string {
	for _, h := range []string{s.cfg.Host, s.cmd.Host} {
		if box.ValidHost(h) {
			return h
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	names, _ := net.DefaultResolver.LookupAddr(ctx, s.cmd.Address.String())
	for _, n := range names {
		if n = strings.TrimSuffix(n, "."); box.ValidHost(n) {
			return n
		}
	}
	return "unknown"
}

// checkArming refuses if the box is now armed with something else than it was
// started with.
func (s *session) checkArming() (err error) {
	if s.version, err = s.arming.Agrees(); err != nil {
		return refusal{err}
	}
	return nil
}

// alreadyDone reports whether an earlier start did this arming's action. result
// is nil, errBadSectors or errDiffers. alreadyDone first brings the box's place
// into order.
func (s *session) alreadyDone() (done bool, result, err error) {
	if s.home == nil {
		return false, nil, nil
	}
	if err := s.passOver(s.home.Recover()); err != nil {
		return false, nil, err
	}
	switch s.home.Done() {
	case "":
		return false, nil, nil
	case box.BadSectors:
		return true, errBadSectors, nil
	case box.Differs:
		return true, errDiffers, nil
	}
	return true, nil, nil
}
