package repo

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// Marker is what lifeboat.json says: whose repository this is.
type Marker struct {
	Format     int       `json:"format"`
	Repository string    `json:"repository"` // 32 hex digits, random
	Cluster    string    `json:"cluster"`
	Created    time.Time `json:"created"`
	Signer     string    `json:"signer"` // the public signing key
}

// signedMarker is lifeboat.json: the marker as it stands there, and the
// signature of those very bytes.
type signedMarker struct {
	Marker    json.RawMessage `json:"marker"`
	Signature string          `json:"signature"`
}

const (
	markerContext = "lifeboat-marker-1\n"
	maxMarker     = 64 << 10
)

func (m Marker) marshal(key SigningKey) []byte {
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err) // plain strings and numbers always marshal
	}
	sig := ed25519.Sign(key.key, append([]byte(markerContext), raw...))
	return signedMarker{raw, encode64(sig)}.bytes()
}

// bytes is the one form of the object.
func (s signedMarker) bytes() []byte {
	return fmt.Appendf(nil, "{\"marker\":%s,\"signature\":\"%s\"}\n", s.Marker, s.Signature)
}

// ReadMarker reads the marker without trusting it: for init, which must tell
// an empty store from another cluster's repository before it has keys.
// ErrNoRepository when there is none.
func ReadMarker(ctx context.Context, store storage.Store) (Marker, error) {
	m, _, err := readMarker(ctx, store)
	return m, err
}

func readMarker(ctx context.Context, store storage.Store) (Marker, signedMarker, error) {
	body, err := store.Open(ctx, MarkerKey, 0, maxMarker)
	if errors.Is(err, fs.ErrNotExist) {
		return Marker{}, signedMarker{}, ErrNoRepository
	}
	if err != nil {
		return Marker{}, signedMarker{}, fmt.Errorf("open repository: %w", opaque(err))
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, maxMarker))
	if err != nil {
		return Marker{}, signedMarker{}, fmt.Errorf("read %s: %w", MarkerKey, opaque(err))
	}
	return parseMarker(raw)
}

// parseMarker checks everything but the signature.
func parseMarker(raw []byte) (Marker, signedMarker, error) {
	var m Marker
	var s signedMarker
	corrupt := func(reason string, err error) (Marker, signedMarker, error) {
		return Marker{}, signedMarker{}, &CorruptError{MarkerKey, reason, err}
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return corrupt("not JSON", err)
	}
	// Byte for byte, so that nothing that is not signed can vary.
	if !bytes.Equal(s.bytes(), raw) {
		return corrupt("not in its one form", nil)
	}
	if err := json.Unmarshal(s.Marker, &m); err != nil {
		return corrupt("not a marker", err)
	}
	if m.Format != Format {
		return Marker{}, signedMarker{}, &FormatError{MarkerKey, m.Format}
	}
	if err := CheckClusterName(m.Cluster); err != nil {
		return corrupt("not a marker", err)
	}
	if err := checkRepositoryID(m.Repository); err != nil {
		return corrupt("not a marker", err)
	}
	if _, err := ParsePublicKey(m.Signer); err != nil {
		return corrupt("not a marker", err)
	}
	return m, s, nil
}

// verify returns *UntrustedError unless the signer that the marker names is a
// trusted one and signed it.
func (s signedMarker) verify(m Marker, trusted []PublicKey) error {
	sig, err := decode64(s.Signature, ed25519.SignatureSize)
	if err != nil {
		return &UntrustedError{MarkerKey, "its signature is not base64"}
	}
	signer, err := ParsePublicKey(m.Signer)
	if err != nil {
		return &UntrustedError{MarkerKey, "its signer is not a key"}
	}
	for _, k := range trusted {
		if !k.Equal(signer) {
			continue
		}
		if ed25519.Verify(k.key, append([]byte(markerContext), s.Marker...), sig) {
			return nil
		}
		return &UntrustedError{MarkerKey, "its signature does not hold"}
	}
	return &UntrustedError{MarkerKey, "it is signed by the unknown key " + signer.ID()}
}

// Remains returns the key of an object of a repository's data, whoever made it, and ""
// where there is none. Without a marker it says that one is gone.
func Remains(ctx context.Context, store storage.Store) (string, error) {
	for _, prefix := range []string{backupsPrefix, packsPrefix, walPrefix} {
		for info, err := range store.List(ctx, prefix) {
			if err != nil {
				return "", fmt.Errorf("look whether the repository is empty: %w", opaque(err))
			}
			return info.Key, nil
		}
	}
	return "", nil
}
