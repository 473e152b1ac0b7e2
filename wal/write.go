package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// peek reads up to n bytes and returns them, and a reader of everything.
func peek(r io.Reader, n int) ([]byte, io.Reader, error) {
	first := make([]byte, n)
	got, err := io.ReadFull(r, first)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, nil, err
	}
	first = first[:got]
	return first, io.MultiReader(bytes.NewReader(first), r), nil
}

// readFull fills buf with all that r has; more or less is an error. The end of
// r is read too, since only there an envelope is known to be genuine.
func readFull(r io.Reader, buf []byte) error {
	if _, err := io.ReadFull(r, buf); err != nil {
		return err
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return fmt.Errorf("more than %d bytes: %w", len(buf), err)
	}
	return nil
}

// notTheEnd hides fs.ErrNotExist and io.EOF, which a reader of WAL takes for
// the end of the archive, in an error that says that something is wrong.
func notTheEnd(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.EOF) {
		return errors.New(err.Error())
	}
	return err
}
