package boottest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/problem"
)

// Disk is a disk of the backup.
type Disk struct {
	io.ReaderAt
	Name   string // "sda", for people
	Kernel string // what the box's kernel called it, such as "nvme0n1"
	Size   int64
	Sector int
}

// Options say how a test is made.
type Options struct {
	Timeout time.Duration
	Expect  *regexp.Regexp // a line that proves it, instead of a login; nil is none
	UEFI    *bool          // nil is as the disks tell
	Log     func(format string, args ...any)
	// Tests set these.
	emulate bool          // also where there is KVM
	handed  time.Duration // instead of handedOver; 0 is handedOver
}

// Limits of a machine.
const (
	memory    = 1024      // MiB
	roomSize  = 4 << 30   // bytes that a guest may write
	codeSize  = 128 << 20 // bytes of a file that QEMU may write; it needs so much for code that stands for the guest's
	maxSerial = 256 << 10
	poll      = time.Second
	// sata is how many disks the controller of the machine takes.
	sata = 6
	// kvmLook is how long a machine may read nothing with KVM. There are hosts on which it
	// can be opened, and no guest gets anywhere.
	kvmLook = 20 * time.Second
)

// Run makes a test. An error says that there is no result.
func Run(ctx context.Context, disks []Disk, o Options) (*image.BootTest, error) {
	if err := Ready(); err != nil {
		return nil, err
	}
	uefi := NeedsUEFI(disks)
	if o.UEFI != nil {
		uefi = *o.UEFI
	}
	if uefi {
		if err := haveOVMF(); err != nil {
			return nil, err
		}
	}
	if len(disks) == 0 || len(disks) > sata {
		return nil, problem.Wrongf("the backup has %d disks, and the virtual machine takes 1 to %d", len(disks), sata)
	}
	begun := time.Now()
	for _, kvm := range []bool{true, false} {
		if kvm && (o.emulate || !canKVM()) {
			continue
		}
		r, err := try(ctx, disks, o, uefi, kvm)
		if !errors.Is(err, errNoKVM) {
			if err == nil {
				r.Time, r.Seconds = time.Now().UTC().Truncate(time.Second), int(time.Since(begun).Seconds())
			}
			return r, err
		}
		o.Log("nothing starts with KVM on this machine, so the processor is emulated")
	}
	return nil, errNoKVM
}

// Ready returns an error if this machine has no QEMU.
func Ready() error {
	if _, err := exec.LookPath(program); err != nil {
		return problem.Wrongf("there is no %s; install the package qemu-system-x86", program)
	}
	return nil
}

const program = "qemu-system-x86_64"

var errNoKVM = errors.New("no guest gets anywhere with KVM")

func canKVM() bool {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// machine is a virtual machine that runs.
type machine struct {
	exports []*export
	files   []*os.File // of QEMU, from descriptor 3 on
	ours    []net.Conn
	serial  text
	said    text // QEMU's own words
	shots   *os.File
	control *control
	ended   chan error
	kill    context.CancelFunc
}

// text keeps the beginning and the end of what is written to it.
type text struct {
	mu      sync.Mutex
	b       []byte
	changed time.Time
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changed = time.Now()
	if t.b = append(t.b, p...); len(t.b) > maxSerial {
		t.b = append(t.b[:maxSerial/4:maxSerial/4], t.b[len(t.b)-maxSerial/2:]...)
	}
	return len(p), nil
}

// escapes are the sequences by which a terminal is told colours and places.
var escapes = regexp.MustCompile("\x1b(\\[[0-9;?]*[A-Za-z]|[()][0-9A-B]|[=>c])")

func (t *text) get() (string, time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ReplaceAll(strings.ToValidUTF8(escapes.ReplaceAllString(string(t.b), ""), ""), "\r", ""), t.changed
}

// pair makes a connection to QEMU, which gets the descriptor that is returned.
func (m *machine) pair() (conn net.Conn, fd int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	ours := os.NewFile(uintptr(fds[0]), "ours")
	defer ours.Close()
	m.files = append(m.files, os.NewFile(uintptr(fds[1]), "QEMU"))
	if conn, err = net.FileConn(ours); err == nil {
		m.ours = append(m.ours, conn)
	}
	return conn, 2 + len(m.files), err
}

// device is the kind of disk that the box had, since its system has drivers for that
// kind when it starts, and may have them for no other.
func (d Disk) device(i int) string {
	is := fmt.Sprintf("drive=d%d,bootindex=%d,serial=testbox%d", i, i+1, i)
	if d.Sector == 4096 {
		is += ",logical_block_size=4096,physical_block_size=4096"
	}
	switch {
	case strings.HasPrefix(d.Kernel, "nvme"), d.Sector == 4096 && !strings.HasPrefix(d.Kernel, "vd"): // SATA has sectors of 512 bytes here
		return "nvme," + is
	case strings.HasPrefix(d.Kernel, "vd"):
		return "virtio-blk-pci," + is
	}
	return fmt.Sprintf("ide-hd,bus=ide.%d,rotation_rate=1,%s", i, is)
}

// try runs a machine until there is a result.
func try(ctx context.Context, disks []Disk, o Options, uefi, kvm bool) (result *image.BootTest, err error) {
	ctx, stop := context.WithCancel(ctx)
	m := &machine{ended: make(chan error, 1), kill: stop}
	var serving sync.WaitGroup
	defer func() {
		stop()
		for _, f := range m.files {
			f.Close()
		}
		for _, c := range m.ours {
			c.Close()
		}
		serving.Wait()
	}()
	file, err := os.CreateTemp("/var/tmp", "testbox-boot-test-")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := os.Remove(file.Name()); err != nil { // it is gone with this process
		return nil, err
	}
	space := &room{file: file, most: roomSize}
	// The service of the server may have no memory that can be written and executed at one address. The code is in a file then.
	accel := []string{"-accel", fmt.Sprintf("tcg,thread=multi,split-wx=on,tb-size=%d", codeSize>>20), "-cpu", "max"}
	if kvm {
		accel = []string{"-accel", "kvm", "-cpu", "host"}
	}
	board := "q35"
	if uefi {
		board = "q35,pflash0=code,pflash1=vars"
	}
	argv := append([]string{"-nodefaults", "-no-user-config", "-display", "none", "-machine", board, "-smp", "1", "-m", fmt.Sprint(memory),
		"-nic", "none", "-no-shutdown", "-name", "testbox-boot-test",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"}, accel...)
	if uefi {
		vars, err := newVars()
		if err != nil {
			return nil, err
		}
		m.files = append(m.files, vars)
		argv = append(argv, "-add-fd", fmt.Sprintf("fd=%d,set=2", 2+len(m.files)), "-blockdev",
			"driver=file,node-name=code,filename="+ovmfCode+",read-only=on", "-blockdev", "driver=file,node-name=vars,filename=/dev/fdset/2")
	}
	argv = append(argv, "-device", "VGA,vgamem_mb=16") // with isa-vga, SeaBIOS of Debian 12 does not go on
	plug := func(d Disk, i int, device string) (*export, error) {
		e := &export{base: d, size: d.Size, room: space, slots: map[int64]int64{}}
		conn, fd, err := m.pair()
		if err != nil {
			return nil, err
		}
		serving.Go(func() { e.serve(conn) })
		argv = append(argv, "-blockdev", fmt.Sprintf("driver=nbd,node-name=n%d,server.type=fd,server.str=%d", i, fd),
			"-blockdev", fmt.Sprintf("driver=raw,node-name=d%d,file=n%d", i, i), "-device", device)
		return e, nil
	}
	for i, d := range disks {
		e, err := plug(d, i, d.device(i))
		if err != nil {
			return nil, err
		}
		m.exports = append(m.exports, e)
	}
	if uefi { // no sign of life comes from this one, and without an index the firmware does not look at it
		d, i := scriptDisk(), len(disks)
		_, err := plug(Disk{ReaderAt: bytes.NewReader(d), Size: int64(len(d))}, i, fmt.Sprintf("virtio-blk-pci,drive=d%d,bootindex=%d", i, i+1))
		if err != nil {
			return nil, err
		}
	}
	serialConn, fd, err := m.pair()
	if err != nil {
		return nil, err
	}
	serving.Go(func() { io.Copy(&m.serial, serialConn) })
	argv = append(argv, "-chardev", fmt.Sprintf("socket,id=serial,fd=%d", fd), "-serial", "chardev:serial")
	controlConn, fd, err := m.pair()
	if err != nil {
		return nil, err
	}
	argv = append(argv, "-chardev", fmt.Sprintf("socket,id=control,fd=%d", fd), "-mon", "chardev=control,mode=control")
	shots, err := unix.MemfdCreate("testbox-screen", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	m.shots = os.NewFile(uintptr(shots), "screen")
	defer m.shots.Close()
	to, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", shots), os.O_WRONLY, 0) // QEMU wants one that can only be written
	if err != nil {
		return nil, err
	}
	m.files = append(m.files, to)
	argv = append(argv, "-add-fd", fmt.Sprintf("fd=%d,set=1", 2+len(m.files)))
	if err := m.start(ctx, argv, o.Log); err != nil {
		return nil, err
	}
	for _, f := range m.files[:len(m.files)-1] { // so that the connections end with QEMU
		f.Close()
	}
	m.control = newControl(controlConn)
	if err := m.control.do("qmp_capabilities", nil, nil); err != nil {
		interrupted := ctx.Err()
		stop()
		<-m.ended
		switch {
		case interrupted != nil:
			return nil, interrupted
		case kvm:
			return nil, errNoKVM
		}
		said, _ := m.said.get()
		return nil, fmt.Errorf("QEMU does not start: %w: %.500s", err, said)
	}
	result, err = m.watch(ctx, o, uefi, kvm)
	stop()
	<-m.ended
	return result, err
}

// nobody is the user with whose rights QEMU runs, if this process may choose.
const nobody = 65534

// start starts QEMU. It has no network and no rights, opens no file of ours, and is killed when this
// process ends, however that ends.
func (m *machine) start(ctx context.Context, argv []string, log func(format string, args ...any)) error {
	started := make(chan error, 1)
	pid := 0
	go func() {
		// The kernel kills the child when the thread that started it ends, so the thread stays. It is not used again.
		runtime.LockOSThread()
		// The service of the server has capabilities, such as to open ports below 1024, that all it starts has too.
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
			started <- fmt.Errorf("take capabilities from QEMU: %w", err)
			return
		}
		if err := confine(); err != nil && os.Geteuid() != 0 {
			log("the kernel cannot confine QEMU (Landlock: %v), which could read what its user can", err)
		}
		if err := noSockets(); err != nil && os.Geteuid() != 0 {
			log("the kernel cannot keep QEMU from sockets (seccomp: %v), by which it could reach what its user can", err)
		}
		// It runs beside restores and gives way to them. It could write to the file for pictures alone,
		// and to memory for code, and both are bounded. Both programs are a part of every Debian.
		cmd := exec.CommandContext(ctx, "nice", append([]string{"-n", "19", "prlimit", fmt.Sprintf("--fsize=%d", codeSize), program}, argv...)...)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
		cmd.Dir = "/"
		cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &m.said, &m.said, m.files
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		if os.Geteuid() == 0 {
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody, Groups: kvmGroup()}
			cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC
		}
		err := cmd.Start()
		if err == nil {
			pid = cmd.Process.Pid
		}
		started <- err
		if cmd.Process != nil {
			m.ended <- cmd.Wait()
		}
	}()
	err := <-started
	if err == nil { // if memory is short, the kernel ends QEMU and not the server
		os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("1000"), 0)
	}
	return err
}

// kvmGroup is the group that may use KVM, which nobody is not in.
func kvmGroup() []uint32 {
	var st unix.Stat_t
	if unix.Stat("/dev/kvm", &st) != nil || st.Gid == 0 {
		return nil
	}
	return []uint32{st.Gid}
}

// watch looks at the machine again and again until there is a result.
func (m *machine) watch(ctx context.Context, o Options, uefi, kvm bool) (*image.BootTest, error) {
	begun := time.Now()
	s := seen{expect: o.Expect, uefi: uefi, handed: cmp.Or(o.handed, handedOver)}
	var last shot
	screenChanged := begun
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case err := <-m.ended:
			m.ended <- err
			said, _ := m.said.get()
			s.ended = strings.TrimSpace(fmt.Sprintf("%v %.300s", err, said))
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				status, ok := exit.Sys().(syscall.WaitStatus)
				s.killed = ok && status.Signaled() && status.Signal() == syscall.SIGKILL
			}
		case <-tick.C:
		}
		s.read, s.wrote = 0, 0
		for _, e := range m.exports {
			e.mu.Lock()
			s.read, s.wrote, s.full = s.read+e.read, s.wrote+e.wrote, s.full || e.full
			broken := e.broken
			e.mu.Unlock()
			if broken != nil {
				return nil, fmt.Errorf("the backup cannot be read: %w", broken)
			}
		}
		serial, changed := m.serial.get()
		s.serial, s.time = serial, time.Since(begun)
		s.resets, s.off = m.control.state()
		if s.ended == "" {
			if now, err := m.look(); err == nil {
				screen := ""
				if last = now; now.text() {
					screen = m.readText()
				}
				if screen != s.screen {
					s.screen, screenChanged = screen, time.Now()
				}
				s.picture = !now.text() && !now.oneColour()
			}
		}
		if changed.Before(screenChanged) {
			changed = screenChanged
		}
		s.still, s.over = time.Since(changed), s.time >= o.Timeout
		if kvm && (s.ended != "" || s.time > kvmLook) && s.read == 0 && s.serial == "" && s.screen == "" {
			return nil, errNoKVM
		}
		if v := judge(s); v.final {
			r := &image.BootTest{Verdict: v.verdict, Sign: v.sign, Text: clip(v.text), Firmware: "bios"}
			if uefi {
				r.Firmware = "uefi"
			}
			if v.busy {
				r.Busy = 1
			}
			if last.RGBA != nil {
				r.Picture = last.png()
			}
			return r, nil
		}
	}
}

// clip makes a text that a record may have. It has words of the guest.
func clip(s string) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return clean[:min(len(clean), image.MaxBootText)]
}

func (m *machine) look() (shot, error) {
	if err := m.control.do("screendump", map[string]any{"filename": "/dev/fdset/1"}, nil); err != nil {
		return shot{}, err
	}
	return readShot(m.shots, m.files[len(m.files)-1])
}

func (m *machine) readText() string {
	var dump string
	if m.control.do("human-monitor-command", map[string]any{"command-line": fmt.Sprintf("xp /%dxb 0xb8000", cells)}, &dump) != nil {
		return ""
	}
	return parseText(dump)
}
