package ntfs

import (
	"fmt"
	"sort"
)

// maxRuns is how many runs of one stream are kept (6 MiB). No normal volume has
// more for $MFT or $Bitmap.
const maxRuns = 1 << 18

const hole = -1

// run is n clusters of a stream from vcn on. They are on the disk at lcn, or
// nowhere if lcn is hole.
type run struct{ vcn, lcn, n int64 }

// runs calls do with each run of a piece of an attribute. In the mapping pairs
// array, each run has a length and a distance from the run before. The byte
// before both has their numbers of bytes. A run without a distance is a hole.
// On NTFS 1.2 a run at cluster -1 is a hole too.
func (f *boot) runs(a *attr, do func(run) error) error {
	b, lcn := a.pairs, int64(0)
	vcn := a.lowest
	if vcn < 0 || a.highest < vcn-1 || a.highest >= 1<<62/f.cluster {
		return fmt.Errorf("attribute %#x says that it has VCNs %d to %d", a.typ, vcn, a.highest)
	}
	for len(b) > 0 && b[0] != 0 {
		lenBytes, lcnBytes := int(b[0]&15), int(b[0]>>4)
		if lenBytes == 0 || lenBytes > 8 || lcnBytes > 8 || 1+lenBytes+lcnBytes > len(b) {
			return fmt.Errorf("the runs of attribute %#x are garbled", a.typ)
		}
		r := run{vcn, hole, signed(b[1 : 1+lenBytes])}
		if lcnBytes > 0 {
			lcn += signed(b[1+lenBytes : 1+lenBytes+lcnBytes]) // may wrap; the range check below finds that
			r.lcn = lcn
		}
		if r.n <= 0 || r.n > a.highest+1-vcn {
			return fmt.Errorf("the runs of attribute %#x are longer than it", a.typ)
		}
		if r.lcn != hole && (r.lcn < 0 || r.n > f.clusters || r.lcn > f.clusters-r.n) {
			return fmt.Errorf("attribute %#x has %d clusters at cluster %d, outside of the volume", a.typ, r.n, r.lcn)
		}
		if err := do(r); err != nil {
			return err
		}
		vcn += r.n
		b = b[1+lenBytes+lcnBytes:]
	}
	// highest is -1 in a stream without clusters. Some tools write 0.
	if vcn != a.highest+1 && (vcn != 0 || a.highest != 0) {
		return fmt.Errorf("the runs of attribute %#x end at VCN %d instead of %d", a.typ, vcn, a.highest+1)
	}
	return nil
}

// signed is a little-endian number of up to 8 bytes.
func signed(b []byte) int64 {
	n := int64(int8(b[len(b)-1]))
	for i := len(b) - 2; i >= 0; i-- {
		n = n<<8 | int64(b[i])
	}
	return n
}

// stream is the content of an attribute.
type stream struct {
	flags             uint16
	value             []byte // of a resident attribute, else nil
	runs              []run  // of a non-resident attribute, without gaps
	size, initialized int64
}

// plain reports whether the stream is stored unchanged on the disk.
func (s *stream) plain() bool { return s.flags&(attrCompression|attrEncrypted|attrSparse) == 0 }

// end is the first VCN behind the runs.
func (s *stream) end() int64 {
	if n := len(s.runs); n > 0 {
		return s.runs[n-1].vcn + s.runs[n-1].n
	}
	return 0
}

// add adds a piece of the stream.
func (f *boot) add(s *stream, a *attr) error {
	if a.pairs == nil {
		*s = stream{flags: a.flags, value: append([]byte{}, a.value...), size: int64(len(a.value)), initialized: int64(len(a.value))}
		return nil
	}
	if a.lowest != s.end() || s.value != nil {
		return fmt.Errorf("attribute %#x goes on at VCN %d instead of %d", a.typ, a.lowest, s.end())
	}
	if a.lowest == 0 {
		s.flags, s.size, s.initialized = a.flags, a.size, a.initialized
	}
	return f.runs(a, func(r run) error {
		if len(s.runs) >= maxRuns {
			return fmt.Errorf("attribute %#x has more than %d runs", a.typ, maxRuns)
		}
		s.runs = append(s.runs, r)
		return nil
	})
}

// whole fails if the stream has fewer clusters than its size needs.
func (f *boot) whole(s *stream) error {
	if s.size < 0 || s.initialized < 0 || s.initialized > s.size || s.value == nil && s.size > s.end()*f.cluster {
		return fmt.Errorf("it has %d bytes, %d of them written, in %d clusters", s.size, s.initialized, s.end())
	}
	return nil
}

// fill reads bytes of a stream. Holes and unwritten bytes are zeros.
func (f *fileSystem) fill(s *stream, b []byte, off int64) error {
	if off < 0 || off > s.size-int64(len(b)) {
		return fmt.Errorf("bytes %d to %d are wanted of a stream of %d", off, off+int64(len(b)), s.size)
	}
	if s.value != nil {
		copy(b, s.value[off:])
		return nil
	}
	if n := s.initialized - off; n < int64(len(b)) {
		clear(b[max(n, 0):])
		b = b[:max(n, 0)]
	}
	i := sort.Search(len(s.runs), func(i int) bool { return (s.runs[i].vcn+s.runs[i].n)*f.cluster > off })
	for len(b) > 0 {
		if i == len(s.runs) {
			return fmt.Errorf("the end of a stream is missing")
		}
		r := s.runs[i]
		in := off - r.vcn*f.cluster
		n := min(int64(len(b)), r.n*f.cluster-in)
		if r.lcn == hole {
			clear(b[:n])
		} else if err := f.v.Fill(b[:n], r.lcn*f.cluster+in); err != nil {
			return err
		}
		b, off = b[n:], off+n
		i++
	}
	return nil
}
