package repo

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// FrameSize is the most raw bytes that one zstd frame holds.
const FrameSize = 1 << 20

const (
	// maxStored is the most bytes that a compressed frame takes: zstd stores
	// what does not compress as it is, with a few bytes around it.
	maxStored = FrameSize + 1<<10

	// maxWindow bounds what a reader of an envelope allocates.
	maxWindow = 8 << 20
)

// Level is how hard to compress.
type Level int

const (
	Fastest Level = iota // the default: zstd decides the speed of everything
	Default
	Better
)

// ParseLevel reads "fastest", "default" or "better".
func ParseLevel(s string) (Level, error) {
	switch s {
	case "fastest", "":
		return Fastest, nil
	case "default":
		return Default, nil
	case "better":
		return Better, nil
	}
	return 0, fmt.Errorf("compression %q: fastest, default or better", s)
}

// newEncoder leaves literals as they are at the fastest level: coding them took
// a quarter of the encoder's time for 6 % of the bytes (docs/benchmarks.md).
func newEncoder(l Level) *zstd.Encoder {
	level := [...]zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression}[l]
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(FrameSize), zstd.WithEncoderCRC(true), zstd.WithNoEntropyCompression(l == Fastest))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}

func newDecoder() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderMaxMemory(FrameSize), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		panic(err)
	}
	return d
}

// sumSize is the length of a frame's checksum: SHA-256 of the stored
// (compressed) bytes, cut to 16 bytes. Only the writer, who is trusted, could
// look for collisions; a forger needs a second preimage, which is 2^128 work.
const sumSize = 16

// frameSum is taken over the compressed bytes: three times fewer than the raw
// ones, and it lets a reader refuse a forged frame before decompressing it.
// zstd's own checksum covers the raw bytes.
func frameSum(stored []byte) string {
	sum := sha256.Sum256(stored)
	return hex.EncodeToString(sum[:sumSize])
}
