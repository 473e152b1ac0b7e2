package storage

import (
	"errors"
	"fmt"
	"io/fs"
)

// What a store can fail with, beside fs.ErrExist and fs.ErrNotExist. Ask with
// errors.Is; the error's own text carries the operation, the key and what the
// store answered.
var (
	// ErrNoStore says that the place itself is missing: no such bucket, the
	// root directory is gone, its file system is not mounted. It is never
	// fs.ErrNotExist, which is about one object.
	ErrNoStore = errors.New("the store is not there")

	// ErrDenied says that the store knows who asks and refuses.
	ErrDenied = fmt.Errorf("the store refuses: %w", fs.ErrPermission)

	// ErrCredentials says that there are no credentials, or that they have
	// expired, are unknown to the store or do not match.
	ErrCredentials = errors.New("no valid credentials for the store")

	// ErrUnavailable says that the store could not be reached or did not
	// manage to answer, also after retries. Trying later may succeed.
	ErrUnavailable = errors.New("the store is unavailable")

	// ErrRedirected says that the server answered with a redirect. None is
	// followed: requests carry credentials.
	ErrRedirected = errors.New("the store points elsewhere, and is not followed")
)

// EndedError says that the context ended while an operation was being tried
// again: Last is why the try before had failed, which says more than that the
// time was up.
type EndedError struct {
	Err  error // the context's
	Last error
}

func (e *EndedError) Error() string { return e.Err.Error() + ", after: " + e.Last.Error() }

// Unwrap gives both.
func (e *EndedError) Unwrap() []error { return []error{e.Err, e.Last} }

// CheckPrefix says whether prefix can be the start of a valid key. The empty
// prefix is every key's.
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	// One more letter makes a key of what ends at a slash or at a dot, and of
	// nothing else that is no key already.
	if err := CheckKey(prefix + "x"); err != nil {
		return fmt.Errorf("prefix: %w", err)
	}
	return nil
}
