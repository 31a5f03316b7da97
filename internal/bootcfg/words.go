package bootcfg

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"testbox-imaging/internal/box"
)

// Words returns the command line's text. ParseCmdline of it gives c again.
func (c *Cmdline) Words() string {
	w := []string{wordAction + string(c.Action)}
	add := func(is bool, key, value string) {
		if is {
			w = append(w, key+"="+value)
		}
	}
	add(c.Mode != ShareMode, wordMode, string(c.Mode))
	add(true, wordArming, string(c.Arming))
	add(true, wordAddress, c.Address.String())
	add(c.Host != "", wordHost, c.Host)
	add(!c.Expires.IsZero(), wordExpires, c.Expires.UTC().Format(time.RFC3339))
	add(!c.TFTP.IsZero(), wordTFTP, c.TFTP.String())
	add(!c.Backup.IsZero(), wordBackup, c.Backup.String())
	add(c.Server.IsValid(), wordServer, c.Server.String())
	add(c.Key != "", wordKey, c.Key)
	add(c.Secret != "", wordSecret, c.Secret)
	add(!c.Root.IsZero(), wordRoot, c.Root.String()+rootOptions)
	add(!c.Fetch.IsZero(), wordFetch, c.Fetch.URL())
	add(!c.Fetch.IsZero(), wordSHA256, c.Fetch.SHA256)
	add(len(c.Disks) > 0, wordDisks, strings.Join(c.Disks, ","))
	add(len(c.Map) > 0, wordMap, strings.Join(c.Map, ","))
	if c.ShrinkTable {
		w = append(w, wordShrink)
	}
	add(c.PrecheckSize, wordCheck, "size")
	if c.AcceptMachine {
		w = append(w, wordAccept)
	}
	if c.AcceptFailing {
		w = append(w, wordFailing)
	}
	add(c.OldImages, wordImage, "old")
	if c.Raw {
		w = append(w, wordRaw)
	}
	add(c.From != "", wordFrom, c.From)
	add(len(c.Hooks) > 0, wordHooks, box.JoinHooks(c.Hooks))
	add(c.Retry != 0, wordRetry, seconds(c.Retry))
	add(c.Stall != 0, wordStall, seconds(c.Stall))
	add(c.Fault != "", wordFault, c.Fault)
	add(!c.Net.IsZero(), wordIP, c.Net.String())
	add(c.BootIF != nil, wordBootIF, bootIF(c.BootIF))
	return strings.Join(w, " ")
}

// What is the action in words, with whose images it uses and what is changed afterwards.
func (c *Cmdline) What() string {
	text := string(c.Action)
	if c.From != "" {
		text += " from " + c.From
	}
	if len(c.Hooks) > 0 {
		text += " with hooks " + box.JoinHooks(c.Hooks)
	}
	return text
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// bootIF spells a card's address as PXELINUX does, with Ethernet's type and
// dashes.
func bootIF(mac []byte) string {
	s := "01"
	for _, b := range mac {
		s += "-" + hex.EncodeToString([]byte{b})
	}
	return s
}

// Agree compares the command line that a box was started with to its boot file.
// It returns the first difference in what decides about disks and images. A box
// must do nothing if it was armed anew while it booted, or if its boot file is
// another box's.
func Agree(started, file *Cmdline) error {
	differ := func(what string, a, b any) error {
		return fmt.Errorf("the box was started with %s %v, its boot file says %v; it was armed again or the boot file was edited", what, a, b)
	}
	switch {
	case started.Mode != file.Mode:
		return differ("mode", started.Mode, file.Mode)
	case started.Action != file.Action:
		return differ("action", started.Action, file.Action)
	case started.Arming != file.Arming:
		return differ("arming", started.Arming, file.Arming)
	case started.Address != file.Address:
		return differ("address", started.Address, file.Address)
	case !slices.Equal(started.Disks, file.Disks):
		return differ("disks", started.Disks, file.Disks)
	case !slices.Equal(started.Map, file.Map):
		return differ("map", started.Map, file.Map)
	case started.ShrinkTable != file.ShrinkTable:
		return differ(wordShrink, started.ShrinkTable, file.ShrinkTable)
	case !started.Expires.Equal(file.Expires):
		return differ("expiry", started.Expires, file.Expires)
	case started.TFTP != file.TFTP:
		return differ("area", started.TFTP, file.TFTP)
	case started.Backup != file.Backup:
		return differ("area", started.Backup, file.Backup)
	case started.Server != file.Server:
		return differ("server", started.Server, file.Server)
	case started.Key != file.Key:
		return differ("key", started.Key, file.Key)
	case started.Secret != file.Secret:
		return differ("secret", started.Secret, file.Secret)
	case started.Root != file.Root:
		return differ("root", started.Root, file.Root)
	case started.Fetch != file.Fetch:
		return differ("root", started.Fetch.URL(), file.Fetch.URL())
	case started.PrecheckSize != file.PrecheckSize:
		return differ(wordCheck, started.PrecheckSize, file.PrecheckSize)
	case started.AcceptMachine != file.AcceptMachine:
		return differ(wordAccept, started.AcceptMachine, file.AcceptMachine)
	case started.AcceptFailing != file.AcceptFailing:
		return differ(wordFailing, started.AcceptFailing, file.AcceptFailing)
	case started.OldImages != file.OldImages:
		return differ(wordImage, started.OldImages, file.OldImages)
	case started.From != file.From:
		return differ(wordFrom, started.From, file.From)
	case !slices.Equal(started.Hooks, file.Hooks):
		return differ(wordHooks, started.Hooks, file.Hooks)
	case started.Raw != file.Raw:
		return differ(wordRaw, started.Raw, file.Raw)
	}
	return nil
}
