package ext

import "fmt"

// scan is a walk through the log.
type scan struct {
	r        *replay
	at       uint32 // the next block
	walked   uint32
	sequence uint32 // the number of the expected transaction
	lastTime uint64 // when the last one was committed, in seconds

	// The fields below are about the transaction that is being read.
	suspect   bool   // a block of the log has a wrong checksum or content
	badData   bool   // a copy has a wrong checksum
	crc       uint32 // with jbdChecksum
	revokes   []uint64
	cut       bool // an earlier transaction is not complete, so no commit may follow
	committed int  // length of r.versions up to the last complete transaction

	committedAll int // the same for r.all
}

// run walks to the log's end.
func (s *scan) run() error {
	s.crc = ^uint32(0)
	for {
		at := s.at
		b, err := s.r.j.read(at, s.ahead())
		if err != nil {
			return err
		}
		kind, sequence, ok := s.r.j.header(b)
		if !ok || sequence != s.sequence {
			break
		}
		if err := s.step(1); err != nil {
			return err
		}
		end := false
		switch kind {
		case jbdDescriptor:
			err = s.descriptor(b)
		case jbdRevokes:
			err = s.revoke(b)
		case jbdCommit:
			end, err = s.commit(b)
		default:
			end = true
		}
		if err != nil {
			return err
		}
		if end {
			s.at = at
			break
		}
	}
	s.r.versions, s.r.all = s.r.versions[:s.committed], s.r.all[:min(len(s.r.all), s.committedAll)]
	return s.checkRest()
}

func (s *scan) ahead() uint32 { return uint32(aheadBytes / s.r.j.f.sb.blockSize) }

// step goes n blocks further in the log, at most once around it.
func (s *scan) step(n uint32) error {
	j := s.r.j
	if n > j.last-j.first-s.walked {
		return fmt.Errorf("its log has no end")
	}
	s.walked += n
	s.at = j.next(s.at, n)
	return nil
}

// descriptor reads a descriptor block and the copies behind it.
func (s *scan) descriptor(b []byte) error {
	j := s.r.j
	// A bad block of the last transaction did not get to the disk. The commit
	// block decides later whether it is the last one.
	if !j.sumOK(jbdDescriptor, b) {
		s.suspect = true
	}
	if j.compat&jbdChecksum != 0 {
		s.crc = crc32be(s.crc, b)
	}
	for _, t := range j.tags(b) {
		at := s.at
		if err := s.step(1); err != nil {
			return err
		}
		if j.sums || j.compat&jbdChecksum != 0 {
			data, err := j.read(at, s.ahead())
			if err != nil {
				return err
			}
			if !j.tagOK(t, s.sequence, data) {
				s.badData = true
			}
			if j.compat&jbdChecksum != 0 {
				s.crc = crc32be(s.crc, data)
			}
		}
		s.keep(written{t.block, version{at: at, sequence: s.sequence, escaped: t.escaped}})
		if i, ok := s.r.matter(t.block); ok {
			if len(s.r.versions) >= maxVersions {
				return fmt.Errorf("it has more than %d copies of bitmaps", maxVersions)
			}
			s.r.versions = append(s.r.versions, version{at: at, sequence: s.sequence, matter: uint32(i), escaped: t.escaped})
		}
	}
	return nil
}

// keep records a copy of any block.
func (s *scan) keep(w written) {
	if s.r.tooMany = s.r.tooMany || len(s.r.all) >= maxVersions; s.r.tooMany {
		s.r.all = nil
		return
	}
	s.r.all = append(s.r.all, w)
}

// revoke collects the revoked blocks until the commit block confirms the
// transaction.
func (s *scan) revoke(b []byte) error {
	if !s.r.j.sumOK(jbdRevokes, b) {
		s.suspect = true
		return nil
	}
	err := s.r.j.revokes(b, func(block uint64) {
		_, ok := s.r.matter(block)
		if others := len(s.r.revoked) + len(s.revokes); !ok && others >= maxVersions {
			s.r.tooMany = true
		} else {
			s.revokes = append(s.revokes, block)
		}
	})
	if err != nil {
		s.suspect = true
	}
	return nil
}

// commit ends a transaction. It reports whether the log ends before it.
func (s *scan) commit(b []byte) (end bool, err error) {
	j := s.r.j
	seconds := be.Uint64(b[0x30:])
	good := j.sumOK(jbdCommit, b) && s.wholeOK(b)
	if s.suspect || s.badData || !good {
		if (s.suspect || !good) && seconds < s.lastTime {
			return true, nil // a leftover of an older journal
		}
		// With async_commit the commit block may get to the disk before the
		// blocks that it commits. Then it must be the last one.
		if s.suspect || s.badData || s.cut || j.incompat&jbdAsyncCommit == 0 {
			return false, fmt.Errorf("transaction %d is damaged", s.sequence)
		}
		s.cut = true
	} else if s.cut {
		return false, fmt.Errorf("a transaction before %d is damaged", s.sequence)
	}
	if !s.cut {
		s.committed, s.committedAll = len(s.r.versions), len(s.r.all)
		for _, block := range s.revokes {
			s.r.revoked[block] = s.sequence
		}
	}
	s.lastTime, s.revokes, s.crc = seconds, s.revokes[:0], ^uint32(0)
	s.sequence++
	return false, nil
}

// wholeOK checks the checksum of a whole transaction, if the journal has them
// (struct commit_header: h_chksum_type, h_chksum_size, h_chksum[0]).
func (s *scan) wholeOK(b []byte) bool {
	if s.r.j.compat&jbdChecksum == 0 {
		return true
	}
	kind, size, sum := b[0xC], b[0xD], be.Uint32(b[0x10:])
	return kind == 1 && size == 4 && sum == s.crc || kind == 0 && size == 0 && sum == 0
}

// checkRest checks the part of the log that was not read. A log that was cut by
// a power failure ends with a transaction that has no commit block. Behind that
// there are only blocks of older transactions. A commit block of the cut
// transaction, or any block of a later one, means that blocks in between are
// damaged. A replay would stop at the damage, while the disk has blocks that
// are newer.
func (s *scan) checkRest() error {
	j := s.r.j
	expected, at := s.sequence, s.at
	if s.cut {
		expected++ // the incomplete one has a commit block
	}
	for range j.last - j.first - s.walked {
		b, err := j.read(at, s.ahead())
		if err != nil {
			return err
		}
		kind, sequence, ok := j.header(b)
		newer := after(sequence, expected) || sequence == expected && kind == jbdCommit
		if ok && newer && (kind == jbdCommit || kind == jbdDescriptor || kind == jbdRevokes) && j.sumOK(kind, b) {
			return fmt.Errorf("transaction %d is damaged, and there is something of %d", expected, sequence)
		}
		at = j.next(at, 1)
	}
	return nil
}
