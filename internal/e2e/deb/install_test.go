package deb

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/testenv"
)

// packages builds the packages with a version, and returns their files.
func packages(t *testing.T, version string) (client, server string) {
	t.Helper()
	dist := t.TempDir()
	run(t, "make", "deb", "VERSION="+version, "DIST="+dist)
	name := func(of string) string { return filepath.Join(dist, of+"_"+version+"_amd64.deb") }
	return name("testbox"), name("testbox-server")
}

// before is a package with another version and otherwise the same, as if it were the one that
// a machine had before.
func before(t *testing.T, file string) string {
	t.Helper()
	tree, to := t.TempDir(), t.TempDir()+"/old.deb"
	run(t, "dpkg-deb", "--raw-extract", file, tree)
	control := filepath.Join(tree, "DEBIAN/control")
	text, err := os.ReadFile(control)
	if err != nil {
		t.Fatal(err)
	}
	write(t, control, string(bytes.ReplaceAll(text, []byte(version), []byte(older))))
	run(t, "dpkg-deb", "-Znone", "--build", tree, to)
	return to
}

const (
	version = "0~later1"
	older   = "0~before1"
)

func TestInstall(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "mmdebstrap", "dh", "lintian", "make", "unshare", "nsenter", "setpriv", "dpkg-deb", "tar", "ip", "curl",
		"qemu-system-x86_64")
	// Most of a build is to compress. Lintian does not bear packages without it.
	t.Setenv("DPKG_DEB_COMPRESSOR_TYPE", "xz")
	t.Setenv("DPKG_DEB_COMPRESSOR_LEVEL", "0")
	client, server := packages(t, version)
	t.Run("install", func(t *testing.T) {
		t.Parallel()
		install(t, client, server)
	})
	t.Run("lintian", func(t *testing.T) {
		t.Parallel()
		if out := run(t, "lintian", "--allow-root", "--fail-on", "error,warning", client, server); strings.TrimSpace(out) != "" {
			t.Errorf("lintian says: %s", out)
		}
	})
	t.Run("the same source makes the same packages", func(t *testing.T) {
		t.Parallel()
		client2, server2 := packages(t, version)
		for one, two := range map[string]string{client: client2, server: server2} {
			run(t, "cmp", one, two)
		}
	})
}

// built makes what stands for a maintenance system, since none can be built without a network.
// It is made anew after each upgrade, as setup demands. internal/maintenance builds real ones.
func built(t *testing.T, dir string) {
	t.Helper()
	v := bootcfg.Version{Format: bootcfg.VersionFormat, Version: filepath.Base(dir), Form: bootcfg.FormRAM, Kernel: "6.1.0-37-amd64",
		Built: time.Now().UTC()}
	text, err := v.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, bootcfg.KernelFile), "kernel")
	write(t, filepath.Join(dir, bootcfg.InitrdFile), "initrd")
	write(t, filepath.Join(dir, bootcfg.VersionFile), string(text))
}

// readmeInstalls is the command of README.md that installs the packages.
func readmeInstalls(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testenv.Top(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`apt-get install( \./dist/\S+)+`).FindString(string(text))
	if command == "" {
		t.Fatal("README.md does not say how to install the packages")
	}
	return "cd /root; " + command
}

// readyLine is what `testbox setup` ends with if nothing is missing.
const readyLine = "The server is ready. The first backup"

// installed is a machine on which our packages are installed, upgraded, removed and purged.
type installed struct {
	*machine
	command string // that installs what is in dist/
	token   string // that setup printed
	config  string // hashes of the configuration and the keys
}

// install goes the newcomer's way in a clean Debian, then upgrades, removes, installs again and
// purges the packages, and looks at the server and its data after each step.
func install(t *testing.T, client, server string) {
	m := &installed{start(t, debian(t, client, server)), readmeInstalls(t), "", ""}
	m.dist(older, before(t, client), before(t, server))
	m.in(m.command)
	m.newcomer()
	m.unit()
	m.config = m.in(configFiles)
	pid := m.in(mainPID)

	m.dist(version, client, server)
	m.in(m.command)
	says(t, m.in("dpkg-query -W -f '${Version}' testbox testbox-server"), version+version)
	m.works("upgrade")
	if m.in(mainPID) == pid {
		t.Error("an upgrade leaves the old server running")
	}

	m.in("apt-get remove testbox testbox-server </dev/null")
	m.kept("remove")
	m.in(`[ ! -e /usr/bin/testbox ]; no systemctl is-active testbox; [ ! -e /lib/systemd/system/testbox.service ]
		no grep -qxs testbox /proc/[0-9]*/comm`)
	m.in(m.command)
	m.works("install again")

	said := m.in("apt-get purge testbox testbox-server </dev/null")
	says(t, said, "these are left", " /var/lib/testbox", " /etc/testbox")
	m.kept("purge")
	m.in(`[ ! -e /etc/testbox/server.toml ]; [ ! -e /usr/bin/testbox ]; no systemctl is-active testbox
		[ ! -e /etc/systemd/system/multi-user.target.wants/testbox.service ]`)

	// Who has purged the packages by mistake loses the configuration and nothing else.
	m.in(m.command)
	m.built()
	says(t, m.in("testbox setup"), "[so] admin", readyLine)
	m.config = m.in(configFiles) // by default the same, but for comments
	m.works("purge and install")

	m.in("apt-get purge testbox testbox-server </dev/null; rm -r /var/lib/testbox /etc/testbox")
	m.in(m.command + `; apt-get purge testbox testbox-server </dev/null; [ ! -e /var/lib/testbox ]; [ ! -e /etc/testbox ]`)
}

const (
	configFiles = "cd /etc/testbox; sha256sum server.toml ../../var/lib/testbox/tls/*"
	mainPID     = "systemctl show --property=MainPID --value testbox"
)

// dist puts packages where `make deb` puts them, in the place of those that are there.
func (m *installed) dist(version, client, server string) {
	m.t.Helper()
	dist := filepath.Join(m.root, "root/dist")
	if err := errors.Join(os.RemoveAll(dist), os.MkdirAll(dist, 0o755)); err != nil {
		m.t.Fatal(err)
	}
	run(m.t, "cp", client, filepath.Join(dist, "testbox_"+version+"_amd64.deb"))
	run(m.t, "cp", server, filepath.Join(dist, "testbox-server_"+version+"_amd64.deb"))
}

func (m *installed) built() {
	m.t.Helper()
	built(m.t, filepath.Join(m.root, "var/lib/testbox", bootcfg.TFTPArea, bootcfg.MaintDir, "ram-1.0"))
}

// newcomer does what README.md says, as far as a machine goes that has no boxes. Nothing of
// Debian can be had, so `testbox setup` cannot build what boxes boot, and says so.
func (m *installed) newcomer() {
	m.t.Helper()
	m.in(`testbox --help >/dev/null
		man --where testbox testbox-setup testbox-image-create testbox-server testbox-maintenance >/dev/null
		man testbox-setup | grep -q 'testbox setup --show'
		[ "$(id -gn testbox)" = testbox ]; [ "$(stat -c %U /var/lib/testbox)" = testbox ]; [ -d /etc/testbox ]
		[ -e /etc/systemd/system/multi-user.target.wants/testbox.service ]; no systemctl is-active testbox; no systemctl is-failed testbox
		. /usr/share/bash-completion/bash_completion; _completion_loader testbox || true
		COMP_WORDS=(testbox image boot-t) COMP_CWORD=2 COMP_LINE='testbox image boot-t' COMP_POINT=20; compopt() { :; }; __start_testbox
		[ "${COMPREPLY[*]%% }" = boot-test ]
		[ -e /usr/share/zsh/vendor-completions/_testbox ]; [ -e /usr/share/fish/vendor_completions.d/testbox.fish ]`)
	out := m.in("no testbox setup")
	says(m.t, out, address+" of the card br0",
		"[done] state folder", "[MISSING] maintenance system", "[done] service", "[done] server", "[done] admin",
		"2 things are missing: maintenance system, boot files")
	if found := regexp.MustCompile(`(?m)^    (\S{20,})$`).FindStringSubmatch(out); found != nil {
		m.token = found[1]
	}
	m.built()
	says(m.t, m.in("testbox setup"), "[so] state folder", "[so] service", "[so] admin", "[so] TFTP pxelinux.0",
		"https://"+address+":8443/ answers", readyLine)
	write(m.t, filepath.Join(m.root, "root/disk"), string(bootSector))
	m.in(`testbox backup 10.9.41.42; testbox jobs | grep 10.9.41.42
		export TESTBOX_STORE=/var/lib/testbox/store; testbox image create 10.9.41.42 /root/disk
		testbox image show 10.9.41.42; echo secret >/etc/testbox/power_key`)
	m.page()
}

// page logs in as the first admin.
func (m *installed) page() {
	m.t.Helper()
	const at = "https://" + address + ":8443/"
	jar := filepath.Join(m.t.TempDir(), "jar")
	get := func(more ...string) string {
		return m.outside(append([]string{"curl", "--silent", "--show-error", "--insecure", "--location", "--max-time", "300",
			"--cookie", jar, "--cookie-jar", jar, "--write-out", "\n%{http_code} %{url_effective}"}, more...)...)
	}
	out := get(at)
	says(m.t, out, "200 "+at+"login")
	if strings.Contains(out, "10.9.41.42") {
		m.t.Errorf("somebody who is not logged in sees a box:\n%s", out)
	}
	says(m.t, get("--data-urlencode", "token="+m.token, at+"login"), "200 "+at, "10.9.41.42")
}

// works says that the server runs and has its data.
func (m *installed) works(step string) {
	m.t.Helper()
	m.until("the server runs after "+step, "systemctl is-active testbox && testbox server status")
	m.in("testbox jobs | grep 10.9.41.42; TESTBOX_STORE=/var/lib/testbox/store testbox image verify 10.9.41.42 /root/disk")
	m.kept(step)
	if m.in(configFiles) != m.config {
		m.t.Errorf("%s changed the configuration or the keys", step)
	}
	m.page()
}

// kept says that all files of the server and of its admin are there.
func (m *installed) kept(step string) {
	m.t.Helper()
	m.in(`[ "$(cat /etc/testbox/power_key)" = secret ]; id testbox >/dev/null; cd /var/lib/testbox
		[ -s ledger.db ]; [ -s tls/agents.key ]; [ -s testbox-tftp/pxelinux.cfg/site.conf ]; ls store/packs/* >/dev/null # after ` + step)
}

// mostExposed is what `systemd-analyze security` may say of the unit, times ten.
const mostExposed = 20

// bootSector is what the machine of a boot test is to start. It asks for a login on its serial line.
var bootSector = func() []byte {
	d := make([]byte, 1<<20)
	copy(d, []byte{0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x80, 0x7c, 0xba, 0xf8, 0x03, 0xac, 0x84, 0xc0, 0x74, 3, 0xee, 0xeb, 0xf8, 0xf4, 0xeb, 0xfd})
	copy(d[0x80:], "up\r\ntb login: ")
	d[510], d[511] = 0x55, 0xaa
	return d
}()

// qemu is this machine's QEMU in the other one, which has none of its own since it is large. It is below
// /usr, as Landlock lets QEMU read nothing elsewhere.
const qemu = `#!/bin/sh
host=/usr/local/host
lib=$host/lib/x86_64-linux-gnu
QEMU_MODULE_DIR=$lib/qemu exec $lib/ld-linux-x86-64.so.2 --library-path $lib $host/bin/qemu-system-x86_64 \
	-L $host/share/seabios -L $host/share/qemu "$@"
`

// within runs a script with the user and all limits of the unit, by a copy of it.
const within = `sed -e 's/^Type=.*/Type=oneshot/; /^Restart/d; /^RuntimeDirectory/d' -e 's|^ExecStart=.*|ExecStart=/bin/bash /root.sh|' \
	/lib/systemd/system/testbox.service >/run/systemd/system/try.service
systemctl daemon-reload
systemctl start try || true
journalctl --sync
journalctl --no-pager --output=cat --unit=try`

// unit holds the unit to what systemd says of it, and to what the server needs: its boot tests
// run QEMU within the limits of the unit.
func (m *installed) unit() {
	m.t.Helper()
	if out := strings.TrimSpace(m.in("systemd-analyze verify testbox.service")); out != "" {
		m.t.Errorf("systemd-analyze verify says: %s", out)
	}
	m.in(fmt.Sprintf("systemd-analyze security --threshold=%d testbox.service", mostExposed))
	write(m.t, filepath.Join(m.root, "root.sh"), prelude+`id
opens() { (: <>/dev/$1) 2>&1; }
opens null; no opens fuse; no opens sdz
opens kvm || opens kvm | grep "No such device" # where the kernel has no KVM
no unshare --user true; no touch /etc/testbox/x; no ls /home/; no ls /root/
echo all is well
`)
	m.in(`mknod -m 666 /dev/fuse c 10 229; mknod -m 666 /dev/sdz b 65 144; mknod -m 660 /dev/kvm c 10 232; chgrp kvm /dev/kvm`)
	says(m.t, m.in(within), "(kvm)", "all is well")

	write(m.t, filepath.Join(m.root, "usr/bin/qemu-system-x86_64"), qemu)
	m.in(`chmod +x /usr/bin/qemu-system-x86_64
		sed -i 's/^boot-test = .*/boot-test = "always"/' /etc/testbox/server.toml; grep '^boot-test = "always"' /etc/testbox/server.toml
		systemctl restart testbox`)
	m.until("the boot test of the server", `testbox image show --store /var/lib/testbox/store 10.9.41.42 | grep 'boot test'`)
	says(m.t, m.in("testbox image show --store /var/lib/testbox/store 10.9.41.42 | grep 'boot test'"), "passed", "it asked for a login")
}
