package object

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// encoder and decoder are made only once, since their tables are large. Both
// can be used by many goroutines at once, each with tables of its own.
var encoder = sync.OnceValue(func() *zstd.Encoder {
	return must(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
		zstd.WithSingleSegment(true), zstd.WithWindowSize(MaxChunk)))
})

var decoder = sync.OnceValue(func() *zstd.Decoder {
	return must(zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(MaxRoot), zstd.WithDecodeAllCapLimit(true)))
})

// checkFrame checks that zstd data begins as the format demands. The frame must
// say that its content has n bytes, and must not need a dictionary.
func checkFrame(data []byte, n int) error {
	var h zstd.Header
	if err := h.Decode(data); err != nil {
		return err
	}
	if h.Skippable || !h.HasFCS || h.FrameContentSize != uint64(n) || h.DictionaryID != 0 {
		return fmt.Errorf("it is not one zstd frame of %d bytes", n)
	}
	return nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // cannot happen, since the options are constant
	}
	return v
}
