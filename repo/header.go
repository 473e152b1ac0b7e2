package repo

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Kind says what an envelope holds.
type Kind string

const (
	KindManifest     Kind = "manifest"
	KindInfo         Kind = "info"
	KindWAL          Kind = "wal"
	KindSystem       Kind = "system"
	KindFingerprints Kind = "fingerprints"
	KindAdoption     Kind = "adoption"
	KindPart         Kind = "part"
	KindBlocks       Kind = "blocks"
	KindPin          Kind = "pin"
	KindCheck        Kind = "check"
)

// Header is the readable first line of an envelope. It is what a host without
// any identity may know: enough to tell "the same segment again" from
// "another segment under that name", and to check the sealed bytes.
type Header struct {
	Kind   Kind
	SHA256 string // of the plain bytes, 64 hex digits
	Size   int64  // of the plain bytes
	Sealed string // SHA-256 of all bytes after the line, 64 hex digits
	Host   string // who wrote it
	Signer string // PublicKey.ID
	sig    []byte
}

const (
	magic           = "lifeboat/1"
	maxHeader       = 1024    // bytes of the line, its end included
	maxPlain        = 1 << 40 // plain bytes of an envelope
	maxHost         = 64
	envelopeContext = "lifeboat-envelope-1\n"
)

// unsigned is the line up to, and without, " sig=".
func (h Header) unsigned() string {
	return fmt.Sprintf("%s kind=%s sha256=%s size=%d sealed=%s host=%s signer=%s",
		magic, h.Kind, h.SHA256, h.Size, h.Sealed, h.Host, h.Signer)
}

func (h Header) line() []byte {
	return []byte(h.unsigned() + " sig=" + encode64(h.sig) + "\n")
}

// signedBytes is what the signature covers: the repository and the place in
// it, so that an object cannot be moved, and every field of the line.
func (h Header) signedBytes(repository, key string) []byte {
	return []byte(envelopeContext + repository + "\n" + key + "\n" + h.unsigned() + "\n")
}

func (h *Header) sign(key SigningKey, repository, object string) {
	h.Signer = key.Public().ID()
	h.sig = ed25519.Sign(key.key, h.signedBytes(repository, object))
}

// signedBy is the trusted key that signed the header for this place; else
// *UntrustedError.
func (h Header) signedBy(trusted []PublicKey, repository, object string) (PublicKey, error) {
	known := false
	for _, k := range trusted {
		if k.ID() != h.Signer {
			continue
		}
		known = true
		if ed25519.Verify(k.key, h.signedBytes(repository, object), h.sig) {
			return k, nil
		}
	}
	if !known {
		return PublicKey{}, &UntrustedError{object, "it is signed by the unknown key " + h.Signer}
	}
	return PublicKey{}, &UntrustedError{object, "its signature does not hold for this place: it is forged, altered or moved"}
}

// parseHeader reads the first line of raw, which may go on after it, and
// returns the length of the line. It accepts exactly what line writes.
func parseHeader(raw []byte) (Header, int, error) {
	var h Header
	end := bytes.IndexByte(raw[:min(len(raw), maxHeader)], '\n')
	if end < 0 {
		return h, 0, errors.New("no header line")
	}
	line := string(raw[:end])
	fields := strings.Split(line, " ")
	if fields[0] != magic {
		return h, 0, fmt.Errorf("it does not begin with %q", magic)
	}
	if len(fields) != 8 {
		return h, 0, fmt.Errorf("header has %d fields, not 8", len(fields))
	}
	var value [8]string
	for i, name := range []string{"", "kind", "sha256", "size", "sealed", "host", "signer", "sig"} {
		v, ok := strings.CutPrefix(fields[i], name+"=")
		if i > 0 && (!ok || v == "") {
			return h, 0, fmt.Errorf("header field %d is not %s=…", i, name)
		}
		value[i] = v
	}
	h.Kind, h.SHA256, h.Sealed, h.Host, h.Signer = Kind(value[1]), value[2], value[4], value[5], value[6]
	var err error
	if h.Size, err = strconv.ParseInt(value[3], 10, 64); err != nil || h.Size < 0 || h.Size > maxPlain {
		return h, 0, errors.New("header size is not one")
	}
	if h.sig, err = decode64(value[7], ed25519.SignatureSize); err != nil {
		return h, 0, errors.New("header signature is not one")
	}
	// There is room for kinds of later versions, and none for tricks.
	if !isWord(value[1], 16, lowerLetters, lowerLetters+decimals) || !isHex(h.SHA256, 32) || !isHex(h.Sealed, 32) || !isHex(h.Signer, 8) || cleanHost(h.Host) != h.Host {
		return h, 0, errors.New("a header field is malformed")
	}
	if !bytes.Equal(h.line(), raw[:end+1]) {
		return h, 0, errors.New("header is not in its one canonical form")
	}
	return h, end + 1, nil
}
