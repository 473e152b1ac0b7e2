package main

import (
	"errors"
	"net/url"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// masked stands for a secret in what is printed.
const masked = "********"

// isSecretKey says whether somebody put a secret key itself where a path or a
// public key belongs. Such a value is never printed.
func isSecretKey(v string) bool {
	return repo.HoldsSecret([]byte(v))
}

func checkPath(v string) error {
	if isSecretKey(v) {
		return errors.New("the value is a secret key; put it into a file of mode 0600 and name the file")
	}
	return nil
}

func checkRecipient(v string) error {
	if isSecretKey(v) {
		return errors.New("the value is a secret key, and no database host should hold one; a recipient is public and starts with age1")
	}
	_, err := repo.ParseRecipient(v)
	return err
}

func checkSigner(v string) error {
	if isSecretKey(v) {
		return errors.New("the value is a secret key; a signer is public, ed25519:…")
	}
	_, err := repo.ParsePublicKey(v)
	return err
}

// checkStoreTimeout leaves the store a second at least: with less no push could
// succeed, and without a limit the archiver could wait for ever.
func checkStoreTimeout(v string) error {
	if d, err := time.ParseDuration(v); err == nil && d < time.Second {
		return errors.New("it must be 1s or longer")
	}
	return nil
}

// maskURL hides the password of a URL.
func maskURL(v string) string {
	if u, err := url.Parse(v); err == nil {
		if _, has := u.User.Password(); has {
			return u.Redacted()
		}
	}
	return v
}
