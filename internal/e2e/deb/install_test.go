package deb

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/maintenance"
	"testbox-imaging/internal/testenv"
)

func run(t *testing.T, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = testenv.Top()
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// packages builds the packages with a version, and returns their files.
func packages(t *testing.T, version string) (client, server string) {
	t.Helper()
	dist := t.TempDir()
	run(t, "make", "deb", "VERSION="+version, "DIST="+dist)
	name := func(of string) string { return filepath.Join(dist, of+"_"+version+"_amd64.deb") }
	return name("testbox"), name("testbox-server")
}

// clean unpacks a Debian root that has the lists of apt, and the packages that ours need
// as files, so that nothing asks the network later. The root is kept in the user's cache.
func clean(t *testing.T, client, server string) string {
	t.Helper()
	needs := run(t, "dpkg-deb", "-f", client, "Depends") + run(t, "dpkg-deb", "-f", server, "Depends")
	needs = regexp.MustCompile(`testbox \([^)]*\),?`).ReplaceAllString(needs, "")
	suite, sources := maintenance.Sources("/etc/apt")
	if suite == "" {
		t.Fatal("this machine has no apt sources of Debian")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	key := fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "1 %s %s %s", suite, sources, needs)))[:16]
	tree := filepath.Join(cache, "testbox", "deb-root-"+key+".tar")
	list := filepath.Join(t.TempDir(), "all.sources")
	if err := os.WriteFile(list, sources, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tree); err != nil {
		if err := os.MkdirAll(filepath.Dir(tree), 0o755); err != nil {
			t.Fatal(err)
		}
		old, _ := filepath.Glob(filepath.Join(filepath.Dir(tree), "deb-root-*"))
		for _, path := range old {
			os.Remove(path)
		}
		words := strings.Join(regexp.MustCompile(`[a-z][a-z0-9+.-]+`).FindAllString(needs, -1), " ")
		tmp := tree + strconv.Itoa(os.Getpid()) + ".tar"
		defer os.Remove(tmp)
		download := `chroot "$1" apt-get install --download-only --no-install-recommends --yes -o APT::Keep-Downloaded-Packages=true ` + words
		run(t, "mmdebstrap", "--mode=root", "--variant=minbase", "--include=man-db,bash-completion,libcap2-bin", "--skip=cleanup/apt",
			"--customize-hook="+download, suite, tmp, list)
		if err := os.Rename(tmp, tree); err != nil {
			t.Fatal(err)
		}
	}
	root := t.TempDir()
	run(t, "tar", "--extract", "--numeric-owner", "--preserve-permissions", "--directory", root, "--file", tree)
	return root
}

// before is a package with another version and otherwise the same, as if it were the one that
// this machine had before.
func before(t *testing.T, file string) string {
	t.Helper()
	tree, to := t.TempDir(), t.TempDir()+"/old.deb"
	run(t, "dpkg-deb", "--raw-extract", file, tree)
	control := filepath.Join(tree, "DEBIAN/control")
	text, err := os.ReadFile(control)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(control, bytes.ReplaceAll(text, []byte(version), []byte("0~before1")), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "dpkg-deb", "-Znone", "--build", tree, to)
	return to
}

const version = "0~later1"

func TestInstall(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "mmdebstrap", "dh", "lintian", "make", "unshare", "chroot", "dpkg-deb", "tar", "ip")
	// Most of a build is to compress. Lintian does not bear packages without it.
	t.Setenv("DPKG_DEB_COMPRESSOR_TYPE", "xz")
	t.Setenv("DPKG_DEB_COMPRESSOR_LEVEL", "0")
	client, server := packages(t, version)
	t.Run("the same source makes the same packages", func(t *testing.T) {
		t.Parallel()
		client2, server2 := packages(t, version)
		for one, two := range map[string]string{client: client2, server: server2} {
			run(t, "cmp", one, two)
		}
	})
	t.Run("lintian", func(t *testing.T) {
		t.Parallel()
		if out := run(t, "lintian", "--allow-root", "--fail-on", "warning", client, server); strings.TrimSpace(out) != "" {
			t.Errorf("lintian says: %s", out)
		}
	})
	t.Run("install", func(t *testing.T) {
		t.Parallel()
		install(t, client, server)
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
	if err := errors.Join(os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, bootcfg.KernelFile), []byte("kernel"), 0o644),
		os.WriteFile(filepath.Join(dir, bootcfg.InitrdFile), []byte("initrd"), 0o644),
		os.WriteFile(filepath.Join(dir, bootcfg.VersionFile), text, 0o644)); err != nil {
		t.Fatal(err)
	}
}

// install installs the packages in a clean Debian without a network, upgrades, removes,
// installs again and purges them, and looks at the data of the server after each step.
func install(t *testing.T, client, server string) {
	root := clean(t, client, server)
	for from, to := range map[string]string{
		before(t, client): "old.deb", before(t, server): "old-server.deb", client: "new.deb", server: "new-server.deb",
	} {
		run(t, "cp", from, filepath.Join(root, to))
	}
	in := func(script string) string {
		t.Helper()
		// The root has no program ip, and no packet leaves the bridge.
		const network = "ip link set lo up; ip link add br0 type bridge; ip addr add 10.9.0.1/16 dev br0; ip link set br0 up; "
		return run(t, "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc="+root+"/proc",
			"/bin/sh", "-c", network+`exec chroot "$@"`, "sh", root, "/bin/bash", "-c",
			"set -e; export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\n"+script)
	}
	says := func(out string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("this does not say %q:\n%s", want, out)
			}
		}
	}
	const apt = "apt-get --yes --no-install-recommends -o Dpkg::Use-Pty=0 -o APT::Keep-Downloaded-Packages=true "
	in(apt + "install /old.deb /old-server.deb")
	says(in(`testbox --help >/dev/null
		man --where testbox testbox-image-create testbox-server testbox-maintenance >/dev/null
		[ "$(id -gn testbox)" = testbox ]; [ "$(stat -c %U /var/lib/testbox)" = testbox ]; [ -d /etc/testbox ]
		[ -e /etc/systemd/system/multi-user.target.wants/testbox.service ]
		. /usr/share/bash-completion/bash_completion; _completion_loader testbox || true
		complete -p testbox | grep -q __start_testbox
		if testbox setup 2>&1; then echo "this must not end well"; exit 1; fi
		echo precious >/var/lib/testbox/store/note; echo secret >/etc/testbox/power_key`),
		"10.9.0.1 of the card br0", "[done] state folder", "[MISSING] maintenance system", "[MISSING] server", "`testbox server &`")

	// The user and the rights are those of the unit.
	serves := func() string {
		t.Helper()
		built(t, filepath.Join(root, "var/lib/testbox", bootcfg.TFTPArea, bootcfg.MaintDir, "ram-1.0"))
		return in(`install -d -o testbox -g testbox /run/testbox
			setpriv --reuid testbox --regid testbox --clear-groups --no-new-privs --inh-caps=-all,+net_bind_service,+net_raw \
				--ambient-caps=-all,+net_bind_service,+net_raw --bounding-set=-all,+net_bind_service,+net_raw \
				testbox server >/tmp/log 2>&1 &
			pid=$!
			until grep -q "The server is ready" /tmp/log; do
				kill -0 $pid || { cat /tmp/log; exit 1; }
				sleep 0.1
			done
			cat /tmp/log
			testbox server status
			testbox setup
			grep -qE '^ *[0-9]+: [0-9A-F]+:0045 ' /proc/net/udp; cat /proc/net/tcp /proc/net/tcp6 | grep -qE ':0050 .* 0A '
			testbox server --check
			kill $pid; wait $pid`)
	}
	says(serves(), "[so] state folder", "[done] admin", "[so] TFTP pxelinux.0", "https://10.9.0.1:8443/ answers",
		"The server is ready. The first backup")
	kept := func(step string) {
		t.Helper()
		in(`[ "$(cat /var/lib/testbox/store/note)" = precious ]; [ "$(cat /etc/testbox/power_key)" = secret ]
			[ -s /var/lib/testbox/ledger.db ]; [ -s /var/lib/testbox/tls/agents.key ]
			[ -s /var/lib/testbox/testbox-tftp/pxelinux.cfg/site.conf ]; id testbox >/dev/null # ` + step)
	}
	const files = "cd /etc/testbox; sha256sum server.toml ../../var/lib/testbox/tls/*"
	config := in(files)
	for _, step := range []string{"install /new.deb /new-server.deb", "remove testbox testbox-server", "install /new.deb /new-server.deb"} {
		in(apt + step)
		kept(step)
		if in(files) != config {
			t.Errorf("%s changed the configuration or the keys", step)
		}
	}
	says(in("dpkg-query -W -f '${Version}' testbox-server"), version)
	says(serves(), "[so] admin", "The server is ready. The first backup")
	said := in(apt + "purge testbox testbox-server </dev/null")
	kept("purge")
	says(said, "these are left", " /var/lib/testbox", " /etc/testbox")
	in(`[ ! -e /etc/testbox/server.toml ]; [ ! -e /usr/bin/testbox ]
		[ ! -e /etc/systemd/system/multi-user.target.wants/testbox.service ]`)

	// Who has purged the packages by mistake loses the configuration and nothing else.
	in(apt + "install /new.deb /new-server.deb")
	in("testbox setup || true")
	says(serves(), "[so] admin", "The server is ready. The first backup")
	kept("purge and install")
	in(apt + "purge testbox testbox-server; rm -r /var/lib/testbox /etc/testbox")
	in(apt + "install /new.deb /new-server.deb; " + apt + "purge testbox testbox-server; [ ! -e /var/lib/testbox ]; [ ! -e /etc/testbox ]")
}

// mostExposed is what `systemd-analyze security` may say of the unit, times ten.
const mostExposed = 20

// TestUnit holds the unit to what systemd says of it.
func TestUnit(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "systemd-analyze")
	unit := filepath.Join(t.TempDir(), "testbox.service")
	data, err := os.ReadFile(filepath.Join(testenv.Top(), "debian/testbox-server.testbox.service"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(unit, data, 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "systemd-analyze", "security", "--offline=true", fmt.Sprintf("--threshold=%d", mostExposed), unit)
	// The program is not installed here.
	text := strings.ReplaceAll(string(data), "/usr/bin/testbox", "/usr/bin/true")
	if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := strings.TrimSpace(run(t, "systemd-analyze", "verify", "--man=no", unit)); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
}
