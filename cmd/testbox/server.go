package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/wire"
)

// serverEnv names the server for commands without --server.
const serverEnv = "TESTBOX_SERVER"

// runEnv names the run of a program that calls commands.
const runEnv = "TESTBOX_RUN"

// serverFlag is the flag of all commands that speak with a server.
type serverFlag struct {
	world  world
	server string
}

func (f *serverFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.server, "server", "",
		"`SERVER` to ask: the path of its socket, or an https URL at which you have logged in (default: $"+serverEnv+", "+f.world.socket+
			", or the server of the only login)")
}

// with runs do with a client of the server.
func (f *serverFlag) with(do func(*apiclient.Client) error) error {
	c, err := f.open()
	if err != nil {
		return err
	}
	defer c.Close()
	return serverErr(do(c))
}

// serverErr gives errors of a connection their exit code.
func serverErr(err error) error {
	if !errors.Is(err, apiclient.ErrLost) || errors.As(err, new(*exitError)) {
		return err
	}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		err = fmt.Errorf("no server answers there: start `testbox server` on this machine, or name a server by --server or $%s (%w)",
			serverEnv, err)
	case errors.Is(err, unix.EACCES):
		err = fmt.Errorf("only root and members of the group %s may use the server's socket: become a member, or use sudo (%w)",
			api.AdminGroup, err)
	}
	return &exitError{exitLost, err}
}

// open makes a client of the server that is meant.
func (f *serverFlag) open() (*apiclient.Client, error) {
	run, given := os.LookupEnv(runEnv)
	if given { // an empty one is a mistake of a script, whose runs would all be one
		if err := api.CheckRun(run); err != nil {
			return nil, wrong("$%s: %w", runEnv, err)
		}
	}
	name := f.server
	if name == "" {
		name = os.Getenv(serverEnv)
	}
	if name == "" {
		if _, err := os.Stat(f.world.socket); err == nil {
			name = f.world.socket
		}
	}
	logins, path, err := readLogins(f.world)
	if name == "" {
		switch {
		case err != nil:
			return nil, err
		case len(logins) == 0:
			return nil, &exitError{exitLost, fmt.Errorf("there is no server: start `testbox server` on this machine (it listens at %s), "+
				"or log in to one on another machine by `testbox login https://SERVER:8443`", f.world.socket)}
		case len(logins) > 1:
			return nil, wrong("you have logged in to several servers; name one by --server or $%s: %s", serverEnv,
				strings.Join(urls(logins), ", "))
		}
		name = logins[0].Server
	}
	if strings.HasPrefix(name, "/") {
		return apiclient.New(apiclient.Config{Server: name, Run: run, Away: f.world.away})
	}
	base, baseErr := apiclient.BaseOf(name)
	if baseErr != nil {
		return nil, wrong("%w", baseErr)
	}
	if err != nil {
		return nil, err
	}
	for _, l := range logins {
		if l.Server != base {
			continue
		}
		key, err := wire.ParseFingerprint(l.Key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w; log in again", path, err)
		}
		return apiclient.New(apiclient.Config{Server: base, Key: key, Token: l.Token, Run: run, Away: f.world.away})
	}
	return nil, wrong("you have not logged in to %s; `testbox login %s` does it", base, base)
}

// login is what is kept of a server.
type login struct {
	Server string `json:"server"`
	Key    string `json:"key"` // fingerprint
	Token  string `json:"token"`
}

func urls(all []login) (out []string) {
	for _, l := range all {
		out = append(out, l.Server)
	}
	return out
}

// readLogins reads the logins of this user, and says where they are.
func readLogins(w world) (all []login, path string, err error) {
	dir, err := w.userDir()
	if err != nil {
		return nil, "", fmt.Errorf("it is not known where your logins are kept: %w", err)
	}
	path = filepath.Join(dir, "testbox", "logins.json")
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, path, nil
	}
	if err != nil {
		return nil, path, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, path, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, path, refused("%s can be read by others: make new tokens, and then `chmod 600 %s`", path, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return nil, path, fmt.Errorf("%s cannot be read: %w; remove it and log in again", path, err)
	}
	return all, path, nil
}

func writeLogins(path string, all []login) error {
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(durable.OS{}, path, append(b, '\n'), 0o600)
}

func newLoginCmd(w world) *cobra.Command {
	var key string
	var logout bool
	cmd := &cobra.Command{
		Use:   "login URL",
		Short: "Log in to a server on another machine",
		Long: `Logs in to a server on another machine. An admin of the server makes a token for you there, with
` + "`testbox token add`" + `. It is read from the terminal, or else from stdin, and kept in your
configuration folder, in a file that only you can read.

At the first time the fingerprint of the server's key is shown: compare it with what the admin says,
since nobody else vouches for it. From then on no other key is taken. On the server's own machine
no login is needed: root and the members of the group testbox may use its socket.`,
		Example: `  testbox login https://server:8443
  testbox login https://server:8443 --key 9c1b...e0 <token
  testbox login https://server:8443 --logout`,
		Args: takesWords(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLogin(cmd.Context(), printerOf(cmd), w, args[0], key, logout)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "the `FINGERPRINT` that the server's key must have; then nothing is asked")
	cmd.Flags().BoolVar(&logout, "logout", false, "forget the login")
	return cmd
}

func runLogin(ctx context.Context, p printer, w world, server, key string, logout bool) error {
	base, err := apiclient.BaseOf(server)
	if err != nil {
		return wrong("%w", err)
	}
	logins, path, err := readLogins(w)
	if err != nil {
		return err
	}
	known := slices.IndexFunc(logins, func(l login) bool { return l.Server == base })
	if logout {
		if known < 0 {
			return wrong("you have not logged in to %s", base)
		}
		return writeLogins(path, slices.Delete(logins, known, known+1))
	}
	is, err := apiclient.KeyOf(ctx, base)
	if err != nil {
		return &exitError{exitLost, fmt.Errorf("%s does not answer: %w", base, err)}
	}
	if err := apiclient.Speaks(ctx, base, is); err != nil {
		return fmt.Errorf("%s: %w", base, err)
	}
	lines := bufio.NewReader(p.in)
	switch {
	case key != "":
		want, err := wire.ParseFingerprint(strings.ToLower(strings.ReplaceAll(key, ":", "")))
		if err != nil {
			return wrong("--key: %w", err)
		}
		if want != is {
			return refused("the server's key has the fingerprint %v, and not %v", is, want)
		}
	case known >= 0 && logins[known].Key == is.String():
	default:
		if known >= 0 {
			p.warnf("the server has ANOTHER KEY than before. Was it set up anew? Else somebody may be in between.")
		}
		p.tellf("The key of %s has the fingerprint\n  %v\nIs that what its admin says? Type yes, or anything else to end.", base, is)
		if a, err := readLine(ctx, lines); err != nil || !strings.EqualFold(a, "yes") {
			return refused("you are not logged in")
		}
	}
	secret, err := readSecret(ctx, p, lines)
	if err != nil {
		return err
	}
	c, err := apiclient.New(apiclient.Config{Server: base, Key: is, Token: secret, Away: w.away})
	if err != nil {
		return wrong("%w", err)
	}
	defer c.Close()
	var me api.Me
	if err := c.Do(ctx, "GET", apiclient.Path("me"), nil, &me); err != nil {
		return serverErr(err)
	}
	l := login{base, is.String(), secret}
	if known >= 0 {
		logins[known] = l
	} else {
		logins = append(logins, l)
	}
	if err := writeLogins(path, logins); err != nil {
		return err
	}
	limit := ""
	if me.Group != "" {
		limit = ", for the boxes of the group " + printable(me.Group)
	}
	p.printf("You are %s on %s, with the role %s%s.\n", printable(me.Name), base, me.Role, limit)
	return nil
}

// readSecret reads a token. At a terminal nobody sees it.
func readSecret(ctx context.Context, p printer, lines *bufio.Reader) (string, error) {
	if f, ok := p.in.(*os.File); ok {
		fd := int(f.Fd())
		if was, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			p.tellf("Token:")
			mute := *was
			mute.Lflag &^= unix.ECHO
			if err := unix.IoctlSetTermios(fd, unix.TCSETS, &mute); err != nil {
				return "", err
			}
			defer unix.IoctlSetTermios(fd, unix.TCSETS, was)
		}
	}
	line, err := readLine(ctx, lines)
	if line == "" && err == nil {
		err = wrong("no token was given")
	}
	return line, err
}

// readLine reads a line, or waits until ctx ends.
func readLine(ctx context.Context, lines *bufio.Reader) (string, error) {
	answer := make(chan string, 1)
	go func() {
		line, _ := lines.ReadString('\n')
		answer <- strings.TrimSpace(line)
	}()
	select {
	case a := <-answer:
		return a, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
