package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
)

// rescueLogin is the flag --ssh of rescue: it logs in to a box when it is up.
type rescueLogin struct {
	user string   // "" is no login
	args []string // for ssh, behind --
}

// exitNoConnection is ssh's exit code if there was no connection, or if it was lost.
const exitNoConnection = 255

var validLogin = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)

// check refuses what makes no sense together with --ssh.
func (l *rescueLogin) check(given func(flag string) bool, boxes []string) error {
	switch {
	case !given("ssh") && len(l.args) > 0:
		return wrong("what stands behind -- is for ssh; it needs --ssh")
	case !given("ssh"):
		return nil
	case !validLogin.MatchString(l.user):
		return wrong("--ssh=%s is no name of a user", printable(l.user))
	case len(boxes) != 1 || strings.HasPrefix(boxes[0], "group:") || strings.HasPrefix(boxes[0], "label:"):
		return wrong("--ssh logs in to one box; name that box")
	case given("json") || given("wait"):
		return wrong("--ssh waits by itself, and has the output of ssh; leave --wait and --json out")
	}
	return nil
}

// runSSH waits until a box is up for rescue, and logs in. A rescue that the box has
// already is used.
func (o *jobOptions) runSSH(ctx context.Context, p printer, c *apiclient.Client, q api.NewJobs) error {
	program, err := exec.LookPath("ssh")
	if err != nil {
		return wrong("there is no ssh on this machine: %w; install it (on Debian: apt-get install openssh-client)", err)
	}
	word := q.Targets[0]
	if _, err := box.ParseAddr(word); err != nil && !strings.HasPrefix(word, "box:") {
		q.Targets[0] = "box:" + word // and no group
	}
	jobs, err := rescuesOf(ctx, c, strings.TrimPrefix(word, "box:"))
	if err == nil && len(jobs) == 0 {
		var list api.JobList
		err = c.Do(ctx, "POST", apiclient.Path("jobs"), q, &list)
		jobs = list.Jobs
	}
	if err != nil {
		return err
	}
	p.out = p.err // stdout is for ssh
	err = o.follow(ctx, p, c, jobs)
	var exit *exitError
	if !errors.As(err, &exit) || exit.code != exitRescue {
		return err
	}
	var j api.Job
	if err := c.Do(ctx, "GET", apiclient.Path("jobs", jobs[0].ID), nil, &j); err != nil {
		return err
	}
	code, err := o.login.connect(program, j)
	if err != nil {
		return err
	}
	return o.login.left(ctx, p, c, j, code)
}

// rescuesOf are the rescues of a box that have not ended. A box that the server does
// not know has none.
func rescuesOf(ctx context.Context, c *apiclient.Client, word string) (rescues []api.Job, err error) {
	open, err := readJobs(ctx, c, url.Values{"box": {word}, "open": {"true"}}, 1000)
	var p *api.Problem
	if err != nil && !(errors.As(err, &p) && p.Code == api.CodeNotFound) {
		return nil, err
	}
	for _, j := range open {
		if j.Action == box.Rescue {
			return []api.Job{j}, nil
		}
	}
	return nil, nil
}

// connect runs ssh with the box's host keys, and takes no others. It returns the exit
// code of ssh.
func (l *rescueLogin) connect(program string, j api.Job) (code int, err error) {
	addr, err := box.ParseAddr(j.Box)
	if err != nil {
		return 0, err
	}
	var known strings.Builder
	for _, text := range j.HostKeys {
		k, err := box.ParseHostKey(text)
		if err != nil {
			return 0, fmt.Errorf("the server names a host key of the box that is none: %w", err)
		}
		fmt.Fprintf(&known, "%s %s\n", addr, k)
	}
	if known.Len() == 0 {
		return 0, fmt.Errorf("the box %s is up for rescue, and has not said its ssh host key, so nobody can tell it from another machine; "+
			"`testbox log %s` says why, and if it says nothing, build its maintenance system anew", addr, addr)
	}
	dir, err := os.MkdirTemp("", "testbox-ssh-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(file, []byte(known.String()), 0o600); err != nil {
		return 0, err
	}
	cmd := exec.Command(program, append(sshOptions(file, l.user, addr), l.args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode(), nil
	}
	return 0, fmt.Errorf("ssh: %w", err)
}

// sshOptions make ssh take the keys of that file and nothing else, whatever the user's
// configuration says. The first of several values counts for ssh.
func sshOptions(knownHosts, user string, addr box.Addr) (args []string) {
	for _, o := range []string{
		`UserKnownHostsFile="` + knownHosts + `"`, "GlobalKnownHostsFile=/dev/null", "StrictHostKeyChecking=yes",
		"HostKeyAlias=" + addr.String(), "CheckHostIP=no", "UpdateHostKeys=no", "VerifyHostKeyDNS=no",
		"IgnoreUnknown=KnownHostsCommand", "KnownHostsCommand=none",
		"ControlMaster=no", "ControlPath=none", // a connection that is open may be one to the box's own system
		"ConnectTimeout=20", "ConnectionAttempts=20", "ServerAliveInterval=10", "ServerAliveCountMax=3",
	} {
		args = append(args, "-o", o)
	}
	return append(args, "-l", user, addr.String())
}

// left says how it goes on with the box after ssh has ended.
func (l *rescueLogin) left(ctx context.Context, p printer, c *apiclient.Client, j api.Job, code int) error {
	if err := c.Do(ctx, "GET", apiclient.Path("jobs", j.ID), nil, &j); err != nil {
		return err
	}
	if j.State != job.Rescue {
		p.tellf("%s: %s", nameOf(j), jobText(j))
		if code == exitNoConnection { // it was lost with the end of the rescue
			return nil
		}
	} else {
		p.tellf("%s is still up for rescue; `testbox finish %s` ends that, and so does `testbox-maintenance finish` on it", nameOf(j), j.Box)
	}
	if code != 0 {
		return &exitError{code, errSaid}
	}
	return nil
}
