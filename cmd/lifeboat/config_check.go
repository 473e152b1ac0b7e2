package main

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// masked stands for a secret in what is printed.
const masked = "********"

// checkCluster holds a cluster's name to what can be a part of an object key,
// a file name and a metric label.
func checkCluster(name string) error {
	if name == "" || len(name) > 64 {
		return errors.New("a name has 1 to 64 characters")
	}
	for i, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		case i > 0 && (r == '-' || r == '_' || r == '.'):
		default:
			return fmt.Errorf("%q is not allowed in a name: letters, digits and, but for the first, \"-_.\"", r)
		}
	}
	return nil
}

// isSecretKey says whether somebody put a secret key itself where a path or a
// public key belongs. Such a value is never printed.
func isSecretKey(v string) bool {
	return strings.Contains(strings.ToUpper(v), "AGE-SECRET-KEY-") || strings.Contains(strings.ToUpper(v), "AGE-PLUGIN-")
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
	if !strings.HasPrefix(v, "age1") {
		return fmt.Errorf("%q is not an age recipient: it would start with age1", v)
	}
	return nil
}

func checkSigner(v string) error {
	if isSecretKey(v) {
		return errors.New("the value is a secret key; a signer is public and starts with ed25519:")
	}
	if !strings.HasPrefix(v, "ed25519:") || len(v) == len("ed25519:") {
		return fmt.Errorf("%q is not a public signing key: it would start with ed25519:", v)
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

// maskConn hides the passwords in a libpq connection string, which is either
// a URI or a list of "keyword=value" where a value may stand in quotes
// (PostgreSQL manual, "Connection Strings"). What cannot be told apart is
// hidden whole.
func maskConn(conn string) string {
	if strings.HasPrefix(conn, "postgres://") || strings.HasPrefix(conn, "postgresql://") {
		u, err := url.Parse(conn)
		if err != nil {
			return masked
		}
		q := u.RawQuery
		for _, param := range strings.FieldsFunc(q, func(r rune) bool { return r == '&' }) {
			if name, value, _ := strings.Cut(param, "="); isSecretWord(name) {
				q = strings.Replace(q, name+"="+value, name+"="+masked, 1)
			}
		}
		if _, has := u.User.Password(); !has {
			if q == u.RawQuery {
				return conn
			}
			u.RawQuery = q
			return u.String()
		}
		user := u.User.Username()
		u.RawQuery, u.User = q, nil
		return strings.Replace(u.String(), "://", "://"+url.PathEscape(user)+":"+masked+"@", 1)
	}
	if !strings.Contains(strings.ToLower(conn), "password") {
		return conn
	}
	// Not at package level: most runs never need it.
	pair := regexp.MustCompile(`(?i)\b((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)+)`)
	if !pair.MatchString(conn) {
		if ok, _ := regexp.MatchString(`(?i)\b(ssl)?password\s*=\s*('')?(\s|$)`, conn); ok {
			return conn
		}
		return masked
	}
	out := pair.ReplaceAllString(conn, "${1}"+masked)
	if strings.Count(out, "'")%2 != 0 {
		return masked
	}
	return out
}

func isSecretWord(name string) bool {
	name = strings.ToLower(name)
	return name == "password" || name == "sslpassword"
}
