package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path"
	"path/filepath"
	"strings"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/progress"
	"testbox-imaging/internal/sharedir"
)

// session is one run of the agent.
type session struct {
	cfg    Config
	cmd    *bootcfg.Cmdline
	fsys   durable.FS
	log    *sharedir.Log    // nil until the backup area is open
	folder *sharedir.Folder // nil: rescue, and the backup area cannot be used

	host     string
	version  string        // of the maintenance system
	uuid     string        // of this machine, "" is unknown
	ahead    time.Duration // of the storage server's clock, before ours
	receipts []image.Receipt
	warnings []string        // said again beside the outcome
	meter    *progress.Meter // of the action, once it is known what it does; nil before
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

// now is the storage server's time, as far as it is known.
func (s *session) now() time.Time { return time.Now().Add(s.ahead).UTC() }

// run does the action, and disarms the box if that is what its end asks for.
func (s *session) run(ctx context.Context) error {
	s.cfg.Alive()
	if err := s.readCmdline(); err != nil {
		return err
	}
	// Whatever is wrong for good with the areas, the boot file, the box's folder
	// or its address, an arming ends when it expires.
	for _, step := range []func() error{s.openAreas, s.checkBootFile} {
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
	if s.folder != nil {
		if err := s.folder.SetNames(s.host); err != nil {
			s.log.Error("name files: %v", err)
		}
	}
	s.fault("")
	result = s.act(ctx)
	if outcomeOf(result).Class() != box.Ended {
		return result
	}
	s.fault("-disarm")
	if err := s.record(result); err != nil {
		// It guards only what follows, so it must not make a good restore be
		// done again, on a storage server that is full.
		s.log.Error("the record of what was done is not written: %v", err)
	}
	return s.disarmAfter(result)
}

func (s *session) expired() bool { return !s.cmd.Expires.IsZero() && s.now().After(s.cmd.Expires) }

func (s *session) endExpired() error {
	s.log.Error("armed for %s until %s: too old, nothing is done", s.cmd.Action, s.cmd.Expires.Format(time.RFC3339))
	return s.disarmAfter(errExpired)
}

// unlessExpired gives back why the action cannot begin, unless the arming has
// expired: the box would try again for ever. That the boot file is gone already
// is no such reason.
func (s *session) unlessExpired(why error) error {
	if _, err := s.bootFiles().Read(s.cmd.Address); errors.Is(err, fs.ErrNotExist) {
		return why
	}
	if s.folder == nil {
		var err error
		if s.ahead, err = s.tftpClock(); err != nil {
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

// tftpClock is the storage server's clock by the area that has the boot file.
func (s *session) tftpClock() (ahead time.Duration, err error) {
	return sharedir.ClockBy(s.fsys, s.bootFilePath()+".clock.tmp")
}

// disarmAfter disarms the box whose action ended with result.
func (s *session) disarmAfter(result error) error {
	if err := s.disarm(); err != nil {
		return err
	}
	return result
}

func (s *session) readCmdline() error {
	cmd, err := bootcfg.ParseCmdline(s.cfg.Cmdline)
	if err != nil {
		return refusal{err}
	}
	s.cmd = cmd
	return nil
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

// openAreas checks that both areas are what they should be, and opens the logs.
func (s *session) openAreas() error {
	if err := s.checkTFTP(); err != nil {
		return refusal{err}
	}
	folder, err := s.openFolder()
	if err != nil && !s.isRescue() {
		return refusal{err}
	}
	clockErr := s.openLog(folder)
	if folder == nil || clockErr != nil {
		s.ahead, clockErr = s.tftpClock()
	}
	s.log.Hello()
	s.log.Announce("%s", begun(s.cmd.Action, s.cmd.Arming))
	if clockErr != nil {
		s.log.Error("the storage server's time is not known, times are this box's: %v", clockErr)
	}
	s.uuid, _ = inventory.MachineUUID(s.cfg.Sys)
	return s.passOver(err)
}

func (s *session) checkTFTP() error {
	if _, err := fs.Stat(dirFS(s.cfg.TFTP), "pxelinux.0"); err != nil {
		return fmt.Errorf("the TFTP area is not mounted on %s, or has no pxelinux.0: %w", s.cfg.TFTP, err)
	}
	return nil
}

// openFolder opens the box's folder in the backup area.
func (s *session) openFolder() (*sharedir.Folder, error) {
	area, err := sharedir.Open(s.fsys, s.cfg.Backup)
	if err != nil {
		return nil, err
	}
	return area.Box(s.cmd.Address)
}

// openLog opens the logs in the box's folder; without a folder the console is
// the log. Without the server's time our own must do; a wrong one at worst ends
// an arming too early or late, and the log says which clock was read.
func (s *session) openLog(folder *sharedir.Folder) (clockErr error) {
	s.folder = folder
	opt := sharedir.LogOptions{Console: s.cfg.Console, Now: s.now}
	if folder == nil {
		s.host = s.hostName()
		s.log = sharedir.ConsoleLog(s.cmd.Address, s.host, opt)
		return nil
	}
	s.ahead, clockErr = folder.Clock()
	s.host = s.hostName()
	s.log = folder.Log(s.host, opt)
	return clockErr
}

// hostName is the name given, armed or looked up; "unknown" without one.
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

// bootFiles is the folder of boot files in the TFTP area.
func (s *session) bootFiles() *bootfiles.Folder {
	return bootfiles.New(s.fsys, filepath.Join(s.cfg.TFTP, bootcfg.ConfigDir))
}

func (s *session) bootFilePath() string { return s.bootFiles().BootFile(s.cmd.Address) }

// checkBootFile holds the command line against the boot file. Without one the
// address is wrong, or an admin disarmed the box while it started.
func (s *session) checkBootFile() error {
	file, err := s.bootFiles().Read(s.cmd.Address)
	if errors.Is(err, fs.ErrNotExist) {
		return refuse("there is no boot file %s: the box was disarmed meanwhile, or has another address", s.bootFilePath())
	}
	if err == nil && file.Err != nil {
		err = fmt.Errorf("boot file %s: %w", s.bootFilePath(), file.Err)
	}
	if err != nil {
		return refusal{err}
	}
	if err := bootcfg.Agree(s.cmd, file.Cmdline); err != nil {
		return refusal{err}
	}
	s.version = path.Base(path.Dir(file.Kernel))
	return nil
}

// disarm removes the boot file, but not one that an admin wrote meanwhile. One
// of this arming that was edited must not keep a box from its disk whose action
// is done, or expired.
func (s *session) disarm() error {
	removed, err := s.bootFiles().Disarm(s.cmd.Address, s.cmd.Arming)
	var anew *bootfiles.ArmedAnewError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.log.Info("there is no boot file any more: the box is disarmed")
		return nil
	case errors.As(err, &anew):
		s.log.Info("armed anew meanwhile for %s; that boot file stays", anew.File.Cmdline.Action)
		return nil
	case errors.As(err, new(*bootfiles.NotOursError)):
		return fmt.Errorf("disarm: %w", err)
	case err != nil:
		return fmt.Errorf("disarm: %w; the box boots into maintenance again until its boot file is gone: "+
			"`testbox pxe-conf disarm %s` removes it, and `testbox share init` gives boxes the right to do so", err, s.cmd.Address)
	case removed.Err != nil:
		s.log.Error("the boot file is of this arming and was edited, and is removed all the same: %v", removed.Err)
	}
	s.log.Info("disarmed")
	// Such a file may have come while the box was at work. The box cannot stay
	// armed because of it: it would never come back to its own disk at all.
	for _, err := range s.bootFiles().NotLocal(s.cmd.Address) {
		s.warn("this box may not start its own disk now: %v", err)
	}
	return nil
}

// record says durably that the action was done. It makes an action happen once:
// a box that loses power between here and disarming only disarms.
func (s *session) record(result error) error {
	return s.folder.SetLast(sharedir.LastAction{
		Arming: s.cmd.Arming, Action: s.cmd.Action, Outcome: outcomeOf(result), Time: s.now(), Receipts: s.receipts,
	})
}

// alreadyDone reports whether this arming's action was done by an earlier
// start, and its result: nil, errBadSectors or errDiffers. It puts the box's
// folder in order first.
func (s *session) alreadyDone() (done bool, result, err error) {
	if s.folder == nil {
		return false, nil, nil
	}
	if err := s.folder.Recover(); err != nil {
		if err := s.passOver(fmt.Errorf("put the box's folder in order: %w", err)); err != nil {
			return false, nil, err
		}
	}
	last, err := s.folder.Last()
	if err != nil {
		// A record that cannot be read is as good as none: the action is
		// done again and writes it anew.
		s.log.Error("record of the last action: %v", err)
	}
	if last != nil && last.Arming == s.cmd.Arming {
		for _, result := range []error{errBadSectors, errDiffers} {
			if last.Outcome == outcomeOf(result) {
				return true, result, nil
			}
		}
		return true, nil, nil
	}
	if s.cmd.Action != box.Backup && s.cmd.Action != box.BackupAgain {
		return false, nil, nil
	}
	done, result = s.committed()
	return done, result, nil
}

// committed is alreadyDone by the images alone: power was lost after they were
// put in place and before the action was recorded.
func (s *session) committed() (done bool, result error) {
	done, err := s.folder.Committed(s.cmd.Arming)
	if err != nil {
		s.log.Error("images that are there: %v", err)
	}
	if err != nil || !done {
		return false, nil
	}
	entries, _ := s.folder.Images() // sound, says Committed
	for _, e := range entries {
		if e.Facts != nil && len(e.Facts.Bad) > 0 {
			result = errBadSectors
		}
	}
	return true, result
}
