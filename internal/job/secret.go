package job

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Seed is what the secrets of a job are made from. All of them follow from it,
// so that the boot file can be written again after a crash, and so that Next
// needs no random numbers. A boot file can be fetched by everybody in the lab,
// so a seed in the ledger gives nothing away that is not known there.
type Seed [32]byte

// MarshalText implements encoding.TextMarshaler.
func (s Seed) MarshalText() ([]byte, error) { return textOf(s) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Seed) UnmarshalText(text []byte) error { return fromText((*[32]byte)(s), text) }

// MarshalText implements encoding.TextMarshaler.
func (s Session) MarshalText() ([]byte, error) { return textOf(s) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Session) UnmarshalText(text []byte) error { return fromText((*[32]byte)(s), text) }

// textOf is in hexadecimal, and "" for zero. A list of numbers, as JSON has arrays of
// bytes otherwise, would be most of a job's text.
func textOf(b [32]byte) ([]byte, error) {
	if b == [32]byte{} {
		return nil, nil
	}
	return hex.AppendEncode(nil, b[:]), nil
}

func fromText(b *[32]byte, text []byte) error {
	*b = [32]byte{}
	if len(text) == 0 {
		return nil
	}
	if len(text) != hex.EncodedLen(len(b)) {
		return fmt.Errorf("%d characters are not the %d hexadecimal digits of 32 bytes", len(text), hex.EncodedLen(len(b)))
	}
	_, err := hex.Decode(b[:], text)
	return err
}

// Secret is the n-th one-time secret, counted from 1. Its number is a part of
// it, so that it can be told whether a genuine secret was used before.
func (s Seed) Secret(n int) string {
	mac := hmac.New(sha256.New, s[:])
	mac.Write([]byte(strconv.Itoa(n)))
	return strconv.Itoa(n) + "-" + hex.EncodeToString(mac.Sum(nil)[:16])
}

// number is the number of a genuine secret, and 0 for any other text.
func (s Seed) number(secret string) int {
	digits, _, _ := strings.Cut(secret, "-")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || s == (Seed{}) || !hmac.Equal([]byte(s.Secret(n)), []byte(secret)) {
		return 0
	}
	return n
}

// use says what the secret of a hello is worth to the job.
func (j Job) use(secret string) secretUse {
	switch n := j.Seed.number(secret); {
	case n == 0:
		return notGenuine
	case n <= j.Secrets:
		return usedBefore
	case n == j.Secrets+1:
		return unused
	}
	return notGenuine // it was never given out
}

type secretUse int

const (
	notGenuine secretUse = iota
	usedBefore
	unused // it is in the boot file now
)
